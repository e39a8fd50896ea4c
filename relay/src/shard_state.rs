//! What the pump knows about one shard that it owns, under one lease epoch.
//!
//! `unsettled` holds the ids of rows that were sent and may still be in the table. A read that returns one of them
//! again does not send it again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use shared::domain::ids::{ReturnId, Shard};
use shared::runtime::clock::Moment;

use crate::cursor::Cursor;
use crate::held::{HeldCheck, HeldRows};
use crate::held_counter::HeldCount;
use crate::in_flight::InFlight;
use crate::lease::HeldLease;
use crate::parked_keys::ParkedKeys;
use crate::partitions::PartitionId;
use crate::pending::{Pending, RowKey};
use crate::predecessor::SentSeqs;
use crate::spans::SendSpan;

/// By this age of a row, almost every transaction with a lower id has ended.
const SETTLING_TIME: Duration = Duration::from_secs(2);

/// A row of a read, sent or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadRow {
    pub(crate) shard: Shard,
    pub(crate) id: i64,
    pub(crate) return_id: ReturnId,
    pub(crate) created: Instant,
}

impl ReadRow {
    pub(crate) fn of(row: &Pending) -> Self {
        Self {
            shard: row.key.shard,
            id: row.key.id,
            return_id: row.return_id,
            created: row.created,
        }
    }
}

#[derive(Debug)]
pub(crate) struct ShardState {
    pub(crate) lease: HeldLease,
    pub(crate) cursor: Cursor,
    pub(crate) held: HeldRows,
    pub(crate) sent_seqs: SentSeqs,
    pub(crate) in_flight: InFlight,
    pub(crate) unsettled: HashSet<i64>,
    /// `None`: must be read before anything is sent.
    pub(crate) parked_keys: Option<ParkedKeys>,
    /// When the hand-over of this shard began.
    pub(crate) handing_over_since: Option<Instant>,
}

impl ShardState {
    /// The state of a shard that was just acquired.
    pub(crate) fn new(shard: Shard, lease: HeldLease, first_number: usize) -> Self {
        Self {
            lease,
            cursor: Cursor::at_zero(shard, Instant::now()),
            held: HeldRows::starting_at(first_number),
            sent_seqs: SentSeqs::default(),
            in_flight: InFlight::starting_at(first_number),
            unsettled: HashSet::new(),
            parked_keys: None,
            handing_over_since: None,
        }
    }

    pub(crate) fn is_readable(&self, now: Moment) -> bool {
        !self.lease.handing_over && self.parked_keys.is_some() && !self.lease.trust.is_over_at(now)
    }

    /// Whether the row comes after a parked one, so that it is parked too.
    pub(crate) fn comes_after_parked(&self, row: &Pending) -> bool {
        let keys = self.parked_keys.as_ref();
        keys.is_some_and(|keys| keys.holds(&row.msg_key, row.return_id, row.seq))
    }

    /// Nothing is in flight, and every acknowledged row is deleted.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    pub(crate) fn note_sent(&mut self, row: &Pending, partition: PartitionId, span: SendSpan) {
        self.in_flight.push(row.key, row.created, partition, span);
        self.unsettled.insert(row.key.id);
        self.sent_seqs.note(row.return_id, row.seq);
    }

    pub(crate) fn note_deleted(&mut self, key: RowKey) {
        self.unsettled.remove(&key.id);
    }

    /// The producer was destroyed: everything that it had not delivered is read and sent again, in order. Acknowledged
    /// rows stay unsettled until they are deleted.
    pub(crate) fn reset_in_flight(&mut self) {
        for key in self.in_flight.forget_all() {
            self.unsettled.remove(&key.id);
        }
        self.reset_order();
    }

    /// Reads the shard again from its beginning, with its parked keys. Needed whenever rows were parked or put back: then
    /// nothing that is remembered about the order of its events holds any more.
    pub(crate) fn reset_order(&mut self) {
        self.parked_keys = None;
        self.sent_seqs.clear();
        self.rewind_to(1);
    }

    /// Reads the held rows again.
    pub(crate) fn release_held(&mut self) {
        self.held.clear();
        self.cursor.rewind_to(1);
    }

    /// Reads the shard from its beginning if its held rows are not those that are known.
    pub(crate) fn note_counted(&mut self, count: &HeldCount) {
        // A release may have come between: then the count says nothing about the rows that are held now.
        if count.has_changed && count.generation == self.held.generation() {
            self.release_held();
        }
    }

    /// Makes the next read return row `id` again before any row above it.
    pub(crate) fn rewind_to(&mut self, id: i64) {
        if self.held.reaches(id) {
            self.release_held();
        } else {
            self.cursor.rewind_to(id);
        }
    }

    /// Begins a read. Returns the id after which it starts, and what to check about the rows that it passes over.
    pub(crate) fn begin_read(&mut self, shard: Shard, now: Instant) -> (i64, Option<HeldCheck>) {
        let begun = self.cursor.begin_read(now, &self.held);
        let check = begun
            .is_sweep
            .then(|| self.held.check(shard, self.unsettled.iter()));
        (begun.after, check.flatten())
    }

    /// Extends the rows that reads pass over by the rows of a read that began after `after`. Young rows are read again:
    /// rows with lower ids may commit a little later. `topic_of` returns the topic of a held row; a row that is
    /// neither held nor in flight ends it. Rows that an earlier read has passed over do not count again: two reads may overlap.
    pub(crate) fn pass_over<'a>(
        &mut self,
        after: i64,
        rows: impl Iterator<Item = &'a ReadRow>,
        topic_of: impl Fn(&ReadRow) -> Option<&'a str>,
    ) {
        if !self.held.reaches(after) {
            return;
        }
        for row in rows {
            if self.held.reaches(row.id) {
                continue;
            } else if row.created.elapsed() < SETTLING_TIME {
                return;
            } else if let Some(topic) = topic_of(row) {
                self.held.add(row.id, row.return_id, topic);
            } else if self.unsettled.contains(&row.id) {
                self.held.pass(row.id);
            } else {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::runtime::clock::Expiry;

    use super::*;

    fn row(id: i64) -> ReadRow {
        ReadRow {
            shard: Shard(3),
            id,
            return_id: ReturnId(id),
            created: Instant::now()
                .checked_sub(SETTLING_TIME)
                .expect("the machine runs for longer"),
        }
    }

    fn state(first_number: usize) -> ShardState {
        let lease = HeldLease {
            epoch: 1,
            redrive_gen: 0,
            trust: Expiry::new(Moment::now(), Duration::from_secs(60)),
            handing_over: false,
        };
        ShardState::new(Shard(3), lease, first_number)
    }

    fn count_of(state: &ShardState) -> HeldCount {
        let check = state.held.check(Shard(3), [].iter()).expect("held rows");
        HeldCount {
            shard: check.shard,
            generation: check.generation,
            has_changed: true,
        }
    }

    #[test]
    fn a_count_from_before_a_release_does_not_release_the_rows_again() {
        let mut state = state(0);
        let rows: Vec<ReadRow> = (1..=4).map(row).collect();
        state.pass_over(0, rows.iter(), |_| Some("topic"));
        let old = count_of(&state);
        state.release_held();
        state.pass_over(0, rows[..3].iter(), |_| Some("topic"));
        state.note_counted(&old);
        assert_eq!(state.held.rows(), 3, "they are not read a second time");
        state.note_counted(&count_of(&state));
        assert_eq!(state.held.rows(), 0, "a count of these rows counts");
    }

    #[test]
    fn a_count_of_another_tenure_of_the_shard_releases_nothing() {
        let (mut before, mut state) = (state(0), state(1 << 32));
        let rows: Vec<ReadRow> = (1..=4).map(row).collect();
        before.pass_over(0, rows.iter(), |_| Some("topic"));
        state.pass_over(0, rows.iter(), |_| Some("topic"));
        state.note_counted(&count_of(&before));
        assert_eq!(state.held.rows(), 4);
    }

    #[test]
    fn rows_that_two_reads_return_are_counted_once() {
        let mut state = state(0);
        let rows: Vec<ReadRow> = (1..=4).map(row).collect();
        state.pass_over(0, rows[..3].iter(), |_| Some("topic"));
        // This read began before the rows of the first one were passed over.
        state.pass_over(0, rows.iter(), |_| Some("topic"));
        assert_eq!((state.held.rows(), state.held.up_to()), (4, 4));
        let check = state.held.check(Shard(3), [].iter()).expect("held rows");
        assert_eq!(check.xor, (1..=4).fold(0, |xor, id| xor ^ id));
    }
}
