//! What is read next, and when: the next read runs while the rows of the last one are sent.

use std::collections::HashMap;
use std::time::Instant;

use shared::domain::ids::Shard;
use shared::runtime::clock::Moment;

use crate::held::HeldCheck;
use crate::metrics::Metrics;
use crate::outbox_reader::{OutboxReader, ReadRequest, ReadResult};
use crate::owned_shards::OwnedShards;
use crate::pace::Pace;
use crate::pending::{Pending, RowKey};
use crate::store::outbox::{Batch, ShardRange};

#[derive(Debug)]
pub(crate) struct ReadAhead {
    reader: OutboxReader,
    pace: Pace,
    /// Rises whenever the result of a read in progress becomes useless.
    generation: u64,
    /// The next read begins with this shard. After a full read it is the shard after the last one read, so that a busy
    /// shard cannot starve the others.
    next_shard: Shard,
    /// Deleted rows that a read in progress may still return. They stay unsettled until it ends, so that they are not
    /// sent again.
    deleted_during_read: Vec<RowKey>,
    metrics: Metrics,
}

impl ReadAhead {
    pub(crate) fn new(reader: OutboxReader, pace: Pace, metrics: Metrics) -> Self {
        Self {
            reader,
            pace,
            generation: 0,
            next_shard: Shard(0),
            deleted_during_read: Vec::new(),
            metrics,
        }
    }

    pub(crate) fn is_reading(&self) -> bool {
        self.reader.is_reading()
    }

    /// When the next read is due.
    pub(crate) fn due(&self) -> Instant {
        self.pace.next()
    }

    /// Postpones the next read.
    pub(crate) fn not_before(&mut self, until: Instant) {
        self.pace.not_before(until);
    }

    /// The next read is due now.
    pub(crate) fn at_once(&mut self, now: Instant) {
        self.pace.immediately(now);
    }

    /// Discards the result of a read in progress.
    pub(crate) fn invalidate(&mut self) {
        self.generation += 1;
    }

    /// Whether the state that a result belongs to still exists.
    pub(crate) fn is_current(&self, result: &ReadResult) -> bool {
        result.request.generation == self.generation
    }

    /// The result of the read in progress. `None`: the reader has ended. Cancel-safe.
    pub(crate) async fn result(&mut self) -> Option<ReadResult> {
        self.reader.result().await
    }

    /// Starts a read of every readable shard. Call it only while no read is in progress. Returns which held rows to count.
    pub(crate) fn start(&mut self, shards: &mut OwnedShards, now: Instant) -> Vec<HeldCheck> {
        let moment = Moment::now();
        let (first, rest): (Vec<_>, Vec<_>) = shards
            .iter_mut()
            .filter(|(_, state)| state.is_readable(moment))
            .partition(|(shard, _)| *shard >= self.next_shard);
        let is_partial = !first.is_empty() && !rest.is_empty();
        let chosen = if first.is_empty() { rest } else { first };
        let (mut ranges, mut checks) = (Vec::new(), Vec::new());
        for (shard, state) in chosen {
            let (after, check) = state.begin_read(shard, now);
            ranges.push(ShardRange { shard, after });
            checks.extend(check);
        }
        if ranges.is_empty() {
            self.pace.idle(now);
            return checks;
        }
        self.reader.request(ReadRequest {
            ranges,
            is_partial,
            generation: self.generation,
        });
        checks
    }

    /// Returns the rows of a read that are not sent yet. Moves the cursors, and decides when and where to read next.
    pub(crate) fn take_new_rows(
        &mut self,
        request: &ReadRequest,
        batch: Batch,
        shards: &mut OwnedShards,
    ) -> Vec<Pending> {
        let (now, moment) = (Instant::now(), Moment::now());
        self.next_shard = advance_cursors(&request.ranges, &batch, shards, now);
        let is_full = batch.is_full;
        let mut rows = batch.rows;
        rows.retain(|row| self.is_new(row, shards, moment));
        match (is_full || request.is_partial, rows.is_empty()) {
            (true, _) => self.pace.immediately(now),
            (false, false) => self.pace.progressed(now),
            (false, true) => self.pace.idle(now),
        }
        rows
    }

    fn is_new(&self, row: &Pending, shards: &OwnedShards, now: Moment) -> bool {
        let state = shards.get(row.key.shard);
        let Some(state) = state.filter(|state| state.is_readable(now)) else {
            return false;
        };
        if state.unsettled.contains(&row.key.id) {
            return false;
        }
        if state.cursor.is_below_floor(row.key.id) {
            self.metrics.late_rows.inc();
        }
        true
    }

    pub(crate) fn note_deleted(&mut self, keys: Vec<RowKey>) {
        self.deleted_during_read.extend(keys);
    }

    /// Deleted rows become settled. Call it only while no read is in progress, or when its result will not be used.
    pub(crate) fn settle_deleted(&mut self, shards: &mut OwnedShards) {
        for key in self.deleted_during_read.drain(..) {
            if let Some(state) = shards.get_mut(key.shard) {
                state.note_deleted(key);
            }
        }
    }
}

/// Returns the shard with which the next read begins.
fn advance_cursors(
    ranges: &[ShardRange],
    batch: &Batch,
    shards: &mut OwnedShards,
    now: Instant,
) -> Shard {
    let mut last_ids: HashMap<Shard, i64> = HashMap::new();
    last_ids.extend(batch.rows.iter().map(|row| (row.key.shard, row.key.id)));
    // A full read may miss rows of the shard that it ended in, and all rows of the shards after it.
    let last_row = batch.rows.last().filter(|_| batch.is_full);
    let ended_in = last_row.map(|row| row.key.shard);
    for range in ranges {
        let is_complete = ended_in.is_none_or(|shard| range.shard < shard);
        if let Some(state) = shards.get_mut(range.shard)
            && (is_complete || ended_in == Some(range.shard))
        {
            let last_id = last_ids.get(&range.shard).copied();
            state.cursor.advance(last_id, is_complete, now);
        }
    }
    ended_in.map_or(Shard(0), |shard| Shard(shard.0 + 1))
}
