//! Deletes old inbox rows, in small batches so that no statement holds many locks.

use std::time::Duration;

use shared::runtime::db::Database;
use shared::runtime::tasks::{Outage, every};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store;

const BATCH: u32 = 500;
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two full batches, to leave the disk to others.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two rounds. A day's rows take minutes to delete, which is soon enough.
const ROUND: Duration = Duration::from_secs(60);

/// Deletes until `stop`.
pub async fn run(db: Database, retention_days: u16, metrics: Metrics, stop: CancellationToken) {
    let (mut rounds, mut outage) = (every(ROUND, &stop), Outage::new("the inbox expiry"));
    while rounds.next().await {
        let expired = db.run("expire_inbox", DEADLINE, move |conn| {
            Box::pin(store::expire_inbox(conn, retention_days, BATCH))
        });
        match expired.await {
            Ok(deleted) => {
                outage.ended();
                metrics.work.inbox_expired.inc_by(deleted);
                if deleted == u64::from(BATCH) {
                    rounds.pause_next(PAUSE);
                }
            }
            Err(error) => {
                metrics
                    .work
                    .transient_failures
                    .with_label_values(&["expire_inbox"])
                    .inc();
                outage.failed(&error);
            }
        }
    }
}
