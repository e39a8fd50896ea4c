//! Rows that are held back, because their topic or partition takes no records now: reads pass over them, until it does.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use shared::domain::ids::{ReturnId, Shard};

use super::Pump;
use crate::held_counter::HeldCount;
use crate::pending::Pending;
use crate::publisher::Publish;
use crate::shard_state::ReadRow;
use crate::store::outbox::ShardRange;

/// All held rows are read again at most this often: a partition that stalls again and again must not stop the others.
const RELEASE_EVERY: Duration = Duration::from_secs(2);
/// The pause doubles with this many held rows, and triples with twice as many.
const ROWS_PER_RELEASE: u64 = 50_000;

/// The rows of one read that are held back.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Each with its topic.
    rows: HashMap<(Shard, i64), String>,
    returns: HashSet<ReturnId>,
}

impl Held {
    pub(super) fn add(&mut self, row: &Pending) {
        self.rows
            .insert((row.key.shard, row.key.id), row.topic.clone());
        self.returns.insert(row.return_id);
    }

    /// Whether an earlier row of the same return is held back.
    pub(super) fn has_return(&self, row: &Pending) -> bool {
        self.returns.contains(&row.return_id)
    }

    fn topic_of(&self, row: &ReadRow) -> Option<&str> {
        self.rows.get(&(row.shard, row.id)).map(String::as_str)
    }
}

impl<P: Publish> Pump<P> {
    /// Lets the next reads pass over the rows of this read that are held back.
    pub(super) fn pass_over(&mut self, ranges: &[ShardRange], read: &[ReadRow], held: &Held) {
        for range in ranges {
            let Some(state) = self.owned.get_mut(range.shard) else {
                continue;
            };
            let mut rows = read.iter().filter(|row| row.shard == range.shard);
            if rows.clone().any(|row| held.topic_of(row).is_some()) {
                state.cursor.note_held();
            } else if state.held.rows() == 0 {
                continue;
            }
            state.pass_over(range.after, &mut rows, |row| held.topic_of(row));
        }
    }

    pub(super) fn note_counted(&mut self, count: &HeldCount) {
        if let Some(state) = self.owned.get_mut(count.shard) {
            state.note_counted(count);
        }
    }

    /// Reads everything again when a topic or a partition takes records again.
    pub(super) fn release_recovered(&mut self) {
        if self.delivery.take_recovered() {
            let pauses = 1 + self.owned.held_rows() / ROWS_PER_RELEASE;
            let pause = RELEASE_EVERY * u32::try_from(pauses).unwrap_or(u32::MAX);
            let earliest = self.released_at.map(|at| at + pause);
            let due = earliest.unwrap_or_else(Instant::now);
            self.release_due = Some(self.release_due.map_or(due, |old| old.min(due)));
        }
        let now = Instant::now();
        if self.release_due.is_some_and(|due| now >= due) {
            self.release_due = None;
            self.released_at = Some(now);
            for (_, state) in self.owned.iter_mut() {
                state.release_held();
            }
            self.reads.at_once(now);
        }
    }
}
