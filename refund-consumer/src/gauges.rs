//! The gauges of what waits, whoever should move it: read from the rows, so that a killed process hides nothing.

use std::time::{Duration, Instant};

use sqlx::mysql::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::{self, Gauges, Standstill};

const EVERY: Duration = Duration::from_secs(5);

/// Keeps the gauges until `stop`. While MySQL does not answer the ages go on growing: unknown is not good. Not
/// cancel-safe: run it in a task of its own.
pub async fn run(pool: MySqlPool, metrics: Metrics, stop: CancellationToken) {
    let (mut gauges, mut known) = (Gauges::default(), Instant::now());
    loop {
        match store::read_gauges(&pool).await {
            Ok(taken) => (gauges, known) = (taken, Instant::now()),
            Err(error) => {
                metrics
                    .transient_failures
                    .with_label_values(&["census"])
                    .inc();
                tracing::warn!(cause = ?error, "what waits could not be read");
            }
        }
        metrics.parked_attempts.set(gauges.parked);
        for (kind, age) in Standstill::ALL.into_iter().zip(gauges.oldest) {
            let seconds = (age + known.elapsed()).as_secs_f64();
            metrics
                .oldest_seconds
                .with_label_values(&[kind.code()])
                .set(seconds);
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(EVERY))
            .await
            .is_none()
        {
            return;
        }
    }
}
