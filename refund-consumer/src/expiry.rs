//! Forgets old inbox rows, in small batches so that no statement holds many locks.

use std::time::Duration;

use sqlx::mysql::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store;

const BATCH: u32 = 500;
/// Between two full batches, to leave the disk to others.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two rounds. A day's rows take minutes to delete and nobody waits for it.
const ROUND: Duration = Duration::from_secs(60);

/// Deletes until `stop`. Not cancel-safe: run it in a task of its own.
pub async fn run(pool: MySqlPool, retention_days: u16, metrics: Metrics, stop: CancellationToken) {
    loop {
        let deleted = match store::expire_inbox(&pool, retention_days, BATCH).await {
            Ok(deleted) => deleted,
            Err(error) => {
                metrics
                    .transient_failures
                    .with_label_values(&["expire_inbox"])
                    .inc();
                tracing::warn!(cause = ?error, "old inbox rows were not deleted");
                0
            }
        };
        metrics.inbox_expired.inc_by(deleted);
        let pause = if deleted == u64::from(BATCH) {
            PAUSE
        } else {
            ROUND
        };
        if stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            return;
        }
    }
}
