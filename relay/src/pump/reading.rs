//! Read: which shards, from where, and which of the rows are new.

use std::collections::HashMap;
use std::time::Instant;

use shared::domain::ids::Shard;

use super::{MAX_UNSETTLED, Pump, TICK};
use crate::pending::Pending;
use crate::publisher::{Flow, Publish};
use crate::reader::{Answer, Ask};
use crate::shard_work::ShardWork;
use crate::store::Range;

impl<P: Publish> Pump<P> {
    pub(super) fn may_read(&self) -> bool {
        !self.reader.is_busy()
            && self.unsettled() < MAX_UNSETTLED
            && !self.topics.holds_back()
            && (self.alone.is_empty() || self.unacked() == 0)
    }

    /// Asks for the rows of every shard that may be read, if it is time to.
    pub(super) fn read_on(&mut self) {
        // First: while they count as unsettled, there may be no room to read.
        if !self.reader.is_busy() {
            self.forget_gone();
        }
        let now = Instant::now();
        if now < self.pace.next() || !self.may_read() {
            return;
        }
        let (first, rest): (Vec<_>, Vec<_>) = self
            .shards
            .iter_mut()
            .filter(|(_, work)| work.is_readable(now))
            .partition(|(shard, _)| **shard >= self.next_shard);
        let is_partial = !first.is_empty() && !rest.is_empty();
        let asked = if first.is_empty() { rest } else { first };
        let range = |(shard, work): (&Shard, &mut ShardWork)| Range {
            shard: *shard,
            after: work.cursor.ask(now),
        };
        let ranges: Vec<Range> = asked.into_iter().map(range).collect();
        if ranges.is_empty() {
            self.pace.idle(now);
            return;
        }
        self.reader.ask(Ask {
            ranges,
            is_partial,
            era: self.era,
        });
    }

    /// Order holds within one flow, so it changes only while nothing is in flight. A backlog waits a moment for that, not
    /// longer: a partition that stands still must not stop the others. It is over when nothing is left in flight either;
    /// so a high rate does not change to and fro.
    pub(super) fn choose_flow(&mut self, answer: &Answer) {
        let is_quiet = self.unacked() == 0;
        if answer.batch.full {
            self.fitting_flow = Flow::Backlog;
        } else if is_quiet && !answer.ask.is_partial {
            self.fitting_flow = Flow::Trickle;
        }
        if is_quiet {
            self.flow = self.fitting_flow;
        }
        self.change_flow_by = Instant::now() + TICK;
    }

    /// Rows that are new to us. Moves the cursors; decides when and where to read next.
    pub(super) fn take_new(&mut self, answer: Answer) -> Vec<Pending> {
        let Answer { ask, batch } = answer;
        let now = Instant::now();
        let mut last: HashMap<Shard, i64> = HashMap::new();
        last.extend(batch.rows.iter().map(|row| (row.key.shard, row.key.id)));
        // A full read has seen nothing, or not all, of the shards from its last one on.
        let cut = batch
            .rows
            .last()
            .filter(|_| batch.full)
            .map(|row| row.key.shard);
        for range in &ask.ranges {
            let covered = cut.is_none_or(|cut| range.shard < cut);
            if let Some(work) = self.shards.get_mut(&range.shard)
                && (covered || cut == Some(range.shard))
            {
                work.cursor
                    .advance(last.get(&range.shard).copied(), covered, now);
            }
        }
        self.next_shard = cut.map_or(Shard(0), |cut| Shard(cut.0 + 1));
        let mut rows = batch.rows;
        rows.retain(|row| self.is_new(row, now));
        match (batch.full || ask.is_partial, rows.is_empty()) {
            (true, _) => self.pace.at_once(now),
            (false, false) => self.pace.progressed(now),
            (false, true) => self.pace.idle(now),
        }
        rows
    }

    fn is_new(&self, row: &Pending, now: Instant) -> bool {
        let work = self
            .shards
            .get(&row.key.shard)
            .filter(|work| work.is_readable(now));
        let Some(work) = work.filter(|work| !work.unsettled.contains(&row.key.id)) else {
            return false;
        };
        if work.cursor.is_below_floor(row.key.id) {
            self.metrics.late_rows.inc();
        }
        true
    }
}
