//! The records of one shard that Kafka has not acknowledged yet, by the number that their delivery report carries.
//!
//! A row may be deleted as soon as its record is acknowledged, in any order: records of one return in one topic share a
//! partition, and an idempotent producer's partition is acknowledged in order. Waiting for a contiguous prefix would let
//! one partition without a leader hold back the rows of all others.

use std::collections::HashMap;
use std::time::Instant;

use shared::domain::ids::EventId;
use shared::domain::trace_context::TraceContext;

use crate::partitions::PartitionId;
use crate::pending::RowKey;
use crate::spans::SendSpan;

#[derive(Debug)]
pub struct InFlight {
    next: usize,
    records: HashMap<usize, (SentRecord, SendSpan)>,
    /// Of records that were forgotten: when their row is sent again, it does not wait again. A row that somebody takes out of
    /// the outbox meanwhile stays here for as long as its shard is ours.
    waited: HashMap<EventId, TraceContext>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentRecord {
    pub key: RowKey,
    pub created: Instant,
    pub(crate) partition: PartitionId,
}

impl InFlight {
    /// Starts at number `first`, so that a late report about an earlier record cannot match a new one.
    pub fn starting_at(first: usize) -> Self {
        Self {
            next: first,
            records: HashMap::new(),
            waited: HashMap::new(),
        }
    }

    /// The number that the next record gets.
    pub fn next_number(&self) -> usize {
        self.next
    }

    pub(crate) fn push(
        &mut self,
        key: RowKey,
        created: Instant,
        partition: PartitionId,
        span: SendSpan,
    ) {
        self.waited.remove(&key.event_id);
        let record = SentRecord {
            key,
            created,
            partition,
        };
        self.records.insert(self.next, (record, span));
        self.next += 1;
    }

    /// The time that an event has waited in the outbox before an earlier attempt to send it.
    pub(crate) fn waited(&self, event: EventId) -> Option<&TraceContext> {
        self.waited.get(&event)
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The record with this number, if it is in flight.
    pub(crate) fn get(&self, number: usize) -> Option<&(SentRecord, SendSpan)> {
        self.records.get(&number)
    }

    /// Removes an acknowledged record. `None` if it was not in flight.
    pub fn acknowledge(&mut self, number: usize) -> Option<SentRecord> {
        let (record, span) = self.records.remove(&number)?;
        span.acknowledged();
        Some(record)
    }

    /// Removes all records: their producer was destroyed.
    pub fn forget_all(&mut self) -> impl Iterator<Item = RowKey> + use<'_> {
        let waited = &mut self.waited;
        self.records.drain().map(|(_, (record, span))| {
            let context = span.waited();
            waited.extend(context.map(|context| (record.key.event_id, context)));
            record.key
        })
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::ids::Shard;

    use super::*;
    use crate::partitions::Partitions;

    fn key(id: i64) -> RowKey {
        RowKey {
            shard: Shard(0),
            id,
            event_id: EventId::generate(),
        }
    }

    fn partition() -> PartitionId {
        Partitions::default().of("t", "1", 1)
    }

    fn in_flight(count: i64) -> InFlight {
        let mut records = InFlight::starting_at(7);
        for id in 0..count {
            records.push(key(id), Instant::now(), partition(), SendSpan::default());
        }
        records
    }

    #[test]
    fn a_record_is_acknowledged_once_and_in_any_order() {
        let mut records = in_flight(3);
        let mut acknowledge = |number| records.acknowledge(number).map(|record| record.key.id);
        assert_eq!(acknowledge(9), Some(2));
        assert_eq!(acknowledge(9), None);
        assert_eq!(acknowledge(7), Some(0));
        assert_eq!(acknowledge(6), None, "no record has this number");
        assert_eq!((records.len(), records.next_number()), (1, 10));
    }

    #[test]
    fn a_late_report_about_a_forgotten_record_matches_no_new_one() {
        let mut records = in_flight(3);
        assert_eq!(records.forget_all().count(), 3);
        assert!(records.is_empty());
        records.push(key(50), Instant::now(), partition(), SendSpan::default());
        assert_eq!(records.acknowledge(7), None);
        assert_eq!(
            records.acknowledge(10).map(|record| record.key.id),
            Some(50)
        );
    }
}
