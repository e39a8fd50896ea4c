//! The gauges of the whole outbox, including shards without an owner, read once a second on their own connection.

use std::time::{Duration, Instant};

use shared::domain::ids::Shard;
use shared::runtime::db::{Database, DbError};
use shared::runtime::tasks::every;
use tokio_util::sync::CancellationToken;

use crate::metrics::{BACKLOG_PERIOD, Metrics, WorkMonitor};
use crate::store::backlog::{self as store, OldestRow};
use crate::store::outbox::ShardRange;

/// A scan begins at the row that was the oldest last time, and this often at 0. A row that commits below the oldest one
/// appears in the gauge with this delay; the pump finds it sooner.
const FULL_SCAN_PERIOD: Duration = Duration::from_secs(15);
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct BacklogGauges {
    database: Database,
    metrics: Metrics,
    monitor: WorkMonitor,
    ranges: Vec<ShardRange>,
    full_scan_at: Instant,
}

impl BacklogGauges {
    pub(crate) fn new(database: Database, metrics: Metrics) -> Self {
        Self {
            database,
            monitor: metrics.monitor("census", "reading the backlog"),
            metrics,
            ranges: full_ranges(),
            full_scan_at: Instant::now() + FULL_SCAN_PERIOD,
        }
    }

    /// Keeps the gauges current until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut turns = every(BACKLOG_PERIOD, &stop);
        while turns.next().await {
            self.refresh().await;
        }
        self.database.close().await;
    }

    async fn refresh(&mut self) {
        if Instant::now() >= self.full_scan_at {
            self.ranges = full_ranges();
            self.full_scan_at = Instant::now() + FULL_SCAN_PERIOD;
        }
        let read = self.read().await;
        // Without a result the age grows by itself.
        let Some((oldest, parked)) = self.monitor.note(read) else {
            return;
        };
        let age = oldest.iter().map(|row| row.age).max();
        self.metrics.oldest_age.set(age.unwrap_or_default());
        self.metrics.parked_rows.set(parked);
        oldest.iter().for_each(|row| self.begin_next_at(row));
    }

    async fn read(&self) -> Result<(Vec<OldestRow>, i64), DbError> {
        let ranges = self.ranges.clone();
        let read = self.database.run("read_backlog", DEADLINE, move |conn| {
            Box::pin(async move {
                let oldest = store::read_oldest(conn, &ranges).await?;
                Ok((oldest, store::count_parked(conn).await?))
            })
        });
        read.await
    }

    fn begin_next_at(&mut self, oldest: &OldestRow) {
        let mut ranges = self.ranges.iter_mut();
        if let Some(range) = ranges.find(|range| range.shard == oldest.shard) {
            range.after = oldest.id - 1;
        }
    }
}

fn full_ranges() -> Vec<ShardRange> {
    let from_zero = |shard| ShardRange { shard, after: 0 };
    Shard::all().map(from_zero).collect()
}
