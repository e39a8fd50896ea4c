//! Records in flight of one shard, each by the number that its report names.
//!
//! A record's row may be deleted as soon as it is acknowledged, whatever was sent before it: records of one return in one
//! topic share a partition, and an idempotent producer's partition is acknowledged in order. Waiting for a contiguous
//! prefix would let one partition without a leader hold back the rows of all others.

use std::collections::HashMap;
use std::time::Instant;

use crate::pending::RowKey;

#[derive(Debug)]
pub struct InFlight {
    next: usize,
    sent: HashMap<usize, Sent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub key: RowKey,
    pub born: Instant,
}

impl InFlight {
    /// Numbers go on from `first`, so that a late report about an earlier record cannot hit a new one.
    pub fn starting_at(first: usize) -> Self {
        Self {
            next: first,
            sent: HashMap::new(),
        }
    }

    /// The number that the next record gets.
    pub fn next_number(&self) -> usize {
        self.next
    }

    pub fn push(&mut self, key: RowKey, born: Instant) {
        self.sent.insert(self.next, Sent { key, born });
        self.next += 1;
    }

    /// Records that Kafka has not acknowledged.
    pub fn len(&self) -> usize {
        self.sent.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// The record of a number, if it is in flight.
    pub fn get(&self, number: usize) -> Option<&Sent> {
        self.sent.get(&number)
    }

    /// Takes the record of a number out: Kafka has it. `None` if it was not in flight.
    pub fn acknowledge(&mut self, number: usize) -> Option<Sent> {
        self.sent.remove(&number)
    }

    /// Gives up everything in flight: the producer is gone.
    pub fn forget(&mut self) -> impl Iterator<Item = RowKey> + use<'_> {
        self.sent.drain().map(|(_, sent)| sent.key)
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::ids::{EventId, Shard};

    use super::*;

    fn in_flight(count: i64) -> InFlight {
        let mut records = InFlight::starting_at(7);
        for id in 0..count {
            let key = RowKey {
                shard: Shard(0),
                id,
                event_id: EventId::generate(),
            };
            records.push(key, Instant::now());
        }
        records
    }

    #[test]
    fn a_record_is_acknowledged_once_and_in_any_order() {
        let mut records = in_flight(3);
        let mut acknowledge = |number| records.acknowledge(number).map(|sent| sent.key.id);
        assert_eq!(acknowledge(9), Some(2));
        assert_eq!(acknowledge(9), None);
        assert_eq!(acknowledge(7), Some(0));
        assert_eq!(acknowledge(6), None, "never given");
        assert_eq!((records.len(), records.next_number()), (1, 10));
    }

    #[test]
    fn a_late_report_about_a_forgotten_record_hits_no_new_one() {
        let mut records = in_flight(3);
        assert_eq!(records.forget().count(), 3);
        assert!(records.is_empty());
        let key = RowKey {
            shard: Shard(0),
            id: 50,
            event_id: EventId::generate(),
        };
        records.push(key, Instant::now());
        assert_eq!(records.acknowledge(7), None);
        assert_eq!(records.acknowledge(10).map(|sent| sent.key.id), Some(50));
    }
}
