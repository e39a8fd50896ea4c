//! Records in flight of one shard, in the order in which they were enqueued, and their acknowledged prefix.
//!
//! Only the contiguous prefix is deleted: a row stays in the outbox until everything that was sent before it from
//! its shard is safe in Kafka.

use std::collections::VecDeque;
use std::time::Instant;

use crate::pending::RowKey;

#[derive(Debug)]
pub struct AckPrefix {
    /// Number of the record at the front.
    first: usize,
    sent: VecDeque<Sent>,
    unacked: usize,
}

/// A record in flight.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub key: RowKey,
    pub born: Instant,
    acked: bool,
}

impl AckPrefix {
    /// Numbers go on from `first`, so that a late report about an earlier record cannot hit a new one.
    pub fn starting_at(first: usize) -> Self {
        Self {
            first,
            sent: VecDeque::new(),
            unacked: 0,
        }
    }

    /// The number that the next record gets.
    pub fn next_number(&self) -> usize {
        self.first + self.sent.len()
    }

    pub fn push(&mut self, key: RowKey, born: Instant) {
        self.unacked += 1;
        self.sent.push_back(Sent {
            key,
            born,
            acked: false,
        });
    }

    /// Records that Kafka has not acknowledged.
    pub fn unacked(&self) -> usize {
        self.unacked
    }

    /// The record of a number that is still in flight.
    pub fn get(&self, number: usize) -> Option<&Sent> {
        self.sent.get(number.checked_sub(self.first)?)
    }

    /// Notes one acknowledgement and moves what is now the contiguous prefix to `done`.
    pub fn acknowledge(&mut self, number: usize, done: &mut Vec<RowKey>) {
        let at = number.checked_sub(self.first);
        let Some(sent) = at
            .and_then(|at| self.sent.get_mut(at))
            .filter(|sent| !sent.acked)
        else {
            return;
        };
        sent.acked = true;
        self.unacked -= 1;
        while let Some(sent) = self.sent.pop_front_if(|sent| sent.acked) {
            self.first += 1;
            done.push(sent.key);
        }
    }

    /// Gives up everything in flight: the producer is gone.
    pub fn forget(&mut self) -> impl Iterator<Item = RowKey> + use<'_> {
        self.first += self.sent.len();
        self.unacked = 0;
        self.sent.drain(..).map(|sent| sent.key)
    }
}

#[cfg(test)]
mod tests {
    use shared::ids::{EventId, Shard};

    use super::*;

    fn in_flight(count: i64) -> AckPrefix {
        let mut acks = AckPrefix::starting_at(7);
        for id in 0..count {
            let key = RowKey {
                shard: Shard(0),
                id,
                event_id: EventId::generate(),
            };
            acks.push(key, Instant::now());
        }
        acks
    }

    fn acknowledge(acks: &mut AckPrefix, number: usize) -> Vec<i64> {
        let mut done = Vec::new();
        acks.acknowledge(number, &mut done);
        done.into_iter().map(|key| key.id).collect()
    }

    #[test]
    fn only_the_contiguous_prefix_is_done() {
        let mut acks = in_flight(4);
        assert_eq!(acknowledge(&mut acks, 8), [0_i64; 0]);
        assert_eq!(acknowledge(&mut acks, 10), [0_i64; 0]);
        assert_eq!(acknowledge(&mut acks, 7), [0, 1]);
        assert_eq!(acknowledge(&mut acks, 9), [2, 3]);
        assert_eq!(acks.unacked(), 0);
    }

    #[test]
    fn a_report_counts_once_and_only_for_its_own_record() {
        let mut acks = in_flight(2);
        assert_eq!(acknowledge(&mut acks, 7), [0]);
        assert_eq!(acknowledge(&mut acks, 7), [0_i64; 0]);
        assert_eq!(acks.unacked(), 1);
        assert_eq!(acks.forget().count(), 1);
        acks.push(
            RowKey {
                shard: Shard(0),
                id: 9,
                event_id: EventId::generate(),
            },
            Instant::now(),
        );
        assert_eq!(acknowledge(&mut acks, 8), [0_i64; 0]);
        assert_eq!(acknowledge(&mut acks, 9), [9]);
    }
}
