//! Counts the rows that are held back (module `held`), on its own connection: a slow count must not delay reads.

use std::collections::HashSet;
use std::time::Duration;

use shared::domain::ids::Shard;
use shared::runtime::db::{Database, DbError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::held::HeldCheck;
use crate::metrics::{Metrics, WorkMonitor};
use crate::store::outbox;

/// The maximum number of rows that one statement counts: milliseconds, however many are held.
const CHUNK_ROWS: u16 = 10_000;
const DEADLINE: Duration = Duration::from_secs(5);

/// The held rows of a shard were counted.
#[derive(Debug)]
pub(crate) struct HeldCount {
    pub(crate) shard: Shard,
    /// Of the [`HeldCheck`].
    pub(crate) generation: usize,
    /// They are not those that are known.
    pub(crate) has_changed: bool,
}

/// The pump's side.
#[derive(Debug)]
pub(crate) struct HeldCounter {
    checks: mpsc::UnboundedSender<HeldCheck>,
    counts: mpsc::UnboundedReceiver<HeldCount>,
    /// Shards that are being counted, or wait for it.
    pending: HashSet<Shard>,
}

impl HeldCounter {
    pub(crate) fn new(database: Database, metrics: &Metrics) -> (Self, CountTask) {
        let (checks, requested) = mpsc::unbounded_channel();
        let (done, counts) = mpsc::unbounded_channel();
        let task = CountTask {
            checks: requested,
            done,
            database,
            monitor: metrics.monitor("count", "counting held rows"),
        };
        let counter = Self {
            checks,
            counts,
            pending: HashSet::new(),
        };
        (counter, task)
    }

    /// Requests a count, unless one of the same shard is not done yet.
    pub(crate) fn request(&mut self, check: HeldCheck) {
        if self.pending.insert(check.shard) {
            // If the task has ended, `counted` returns `None`.
            let _ = self.checks.send(check);
        }
    }

    /// The next count. `None`: the task has ended. Cancel-safe.
    pub(crate) async fn counted(&mut self) -> Option<HeldCount> {
        let count = self.counts.recv().await?;
        self.pending.remove(&count.shard);
        Some(count)
    }
}

#[derive(Debug)]
pub(crate) struct CountTask {
    checks: mpsc::UnboundedReceiver<HeldCheck>,
    done: mpsc::UnboundedSender<HeldCount>,
    database: Database,
    monitor: WorkMonitor,
}

impl CountTask {
    /// Serves requests until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(check)) = stop.run_until_cancelled(self.checks.recv()).await {
            let Some(counted) = stop.run_until_cancelled(self.count(&check)).await else {
                break;
            };
            // A shard that could not be counted is counted again in its next sweep.
            let counted = self.monitor.note(counted);
            let count = HeldCount {
                shard: check.shard,
                generation: check.generation,
                has_changed: counted.is_some_and(|found| found != (check.rows, check.xor)),
            };
            if self.done.send(count).is_err() {
                break;
            }
        }
        self.database.close().await;
    }

    /// The number of held rows, and the exclusive or of their ids.
    async fn count(&self, check: &HeldCheck) -> Result<(u64, i64), DbError> {
        let (shard, up_to) = (check.shard, check.up_to);
        let (mut rows, mut xor) = (0, 0);
        let mut after = 0;
        loop {
            let chunk = self
                .database
                .run::<_, DbError, _>("read_ids", DEADLINE, move |conn| {
                    Box::pin(async move {
                        Ok(outbox::read_ids(conn, shard, after, up_to, CHUNK_ROWS).await?)
                    })
                });
            let ids = chunk.await?;
            for id in ids.iter().filter(|id| !check.in_flight.contains(id)) {
                rows += 1;
                xor ^= id;
            }
            match ids.last() {
                Some(last) if ids.len() >= usize::from(CHUNK_ROWS) => after = *last,
                _ => return Ok((rows, xor)),
            }
        }
    }
}
