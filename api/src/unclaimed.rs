//! How long the oldest new return has waited for a consumer, as the rows show it: an alarm about consumers must not depend
//! on one of them.
//!
//! Each api reads it for itself, on a connection of its own: one row of an index, every five seconds. A reading begins where
//! the last one found the oldest return, because returns that moved on leave delete marks in the index. Once a minute a reading begins at the beginning: a return may be committed late.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::runtime::db::{Database, DbError};
use shared::runtime::tasks::{Outage, every};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::{self, OldestUnclaimed};

/// Between two readings.
const PERIOD: Duration = Duration::from_secs(5);
/// Between two readings from the beginning.
const WHOLE_PERIOD: Duration = Duration::from_secs(60);
/// Above the 4 s after which the server ends the reading.
const DEADLINE: Duration = Duration::from_secs(5);
/// A reading begins so long before the present at the latest: longer than a filing's transaction takes.
const LATE_COMMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct UnclaimedGauge {
    db: Database,
    metrics: Arc<Metrics>,
    from: OffsetDateTime,
    whole_at: Instant,
    outage: Outage,
}

impl UnclaimedGauge {
    pub(crate) fn new(db: &Database, metrics: Arc<Metrics>) -> Self {
        Self {
            db: db.separate(1),
            metrics,
            from: OffsetDateTime::UNIX_EPOCH,
            whole_at: Instant::now() + WHOLE_PERIOD,
            outage: Outage::new("reading the oldest return that no consumer has claimed"),
        }
    }

    /// Keeps the gauge until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut turns = every(PERIOD, &stop);
        while turns.next().await {
            // If the whole takes too long, the next reading begins again where the last one ended.
            let mut from = self.from;
            if Instant::now() >= self.whole_at {
                from = OffsetDateTime::UNIX_EPOCH;
                self.whole_at = Instant::now() + WHOLE_PERIOD;
            }
            match stop.run_until_cancelled(self.read(from)).await {
                None => return,
                Some(Ok(read)) => {
                    self.outage.ended();
                    self.metrics.oldest_unclaimed.set(read.age());
                    let late = read.now - LATE_COMMIT;
                    self.from = read.filed_at.map_or(late, |filed| filed.min(late));
                }
                // The age grows by itself.
                Some(Err(error)) => self.outage.failed(&error),
            }
        }
    }

    async fn read(&self, from: OffsetDateTime) -> Result<OldestUnclaimed, DbError> {
        let read = self.db.run("oldest_unclaimed", DEADLINE, move |conn| {
            Box::pin(async move { Ok(store::oldest_unclaimed(conn, from).await?) })
        });
        read.await
    }
}
