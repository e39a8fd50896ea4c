//! P2, P3, P4: both topics hold every committed event once or more and nothing else, and the first records of a return's
//! events come in the order of `seq`, without a gap.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::BrokenPromise;
use super::topics::Record;

/// Records of an event that was there already, by the relay that sent them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Repeats {
    /// A later owner of the shard, which did not know that the event had been sent.
    pub by_successors: u64,
    /// A former owner of the shard, which was frozen.
    pub late: u64,
    /// The owner that had sent it before, after its producer had failed.
    pub by_owners: u64,
}

impl Repeats {
    pub fn count(&self) -> u64 {
        self.by_successors + self.late + self.by_owners
    }
}

/// Takes the records of both topics, then the committed events.
#[derive(Debug, Default)]
pub struct TopicOrder {
    /// By return and seq: the event and the highest epoch of its records.
    events: HashMap<(i64, i64), (String, i64)>,
    last_seq: HashMap<i64, i64>,
    repeats: Repeats,
}

impl TopicOrder {
    /// The records of one partition must come in its order.
    ///
    /// # Errors
    /// P2 or P4 is broken.
    pub fn take(&mut self, record: &Record) -> Result<(), BrokenPromise> {
        let (return_id, seq) = (record.return_id(), record.seq());
        if let Some((known, last_epoch)) = self.events.get_mut(&(return_id, seq)) {
            if known != record.event_id() {
                return broken(format!(
                    "P2: return {return_id} seq {seq} is both {known} and {}",
                    record.event_id()
                ));
            }
            match record.epoch().cmp(last_epoch) {
                Ordering::Greater => self.repeats.by_successors += 1,
                Ordering::Less => self.repeats.late += 1,
                Ordering::Equal => self.repeats.by_owners += 1,
            }
            *last_epoch = record.epoch().max(*last_epoch);
            return Ok(());
        }
        let event = (record.event_id().to_owned(), record.epoch());
        self.events.insert((return_id, seq), event);
        // Seq 1 is alone in its topic.
        if seq > 1 {
            let last = self.last_seq.insert(return_id, seq).unwrap_or(1);
            if last + 1 != seq {
                return broken(format!(
                    "P4: return {return_id} seq {seq} first appears after {last}"
                ));
            }
        }
        Ok(())
    }

    /// How many different events there are.
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// A committed event must be there.
    ///
    /// # Errors
    /// P2 or P3 is broken.
    pub fn confirm(
        &mut self,
        return_id: i64,
        seq: i64,
        event_id: &str,
    ) -> Result<(), BrokenPromise> {
        match self.events.remove(&(return_id, seq)) {
            Some((sent, _)) if sent == event_id => Ok(()),
            Some((sent, _)) => broken(format!(
                "P2: return {return_id} seq {seq} is {event_id}, Kafka has {sent}"
            )),
            None => broken(format!(
                "P3: return {return_id} seq {seq} never reached Kafka"
            )),
        }
    }

    /// After the last committed event.
    ///
    /// # Errors
    /// P2 is broken.
    pub fn finish(self) -> Result<Repeats, BrokenPromise> {
        match self.events.len() {
            0 => Ok(self.repeats),
            unknown => broken(format!(
                "P2: {unknown} events in Kafka were never committed"
            )),
        }
    }
}

fn broken<T>(promise: String) -> Result<T, BrokenPromise> {
    Err(BrokenPromise(promise))
}
