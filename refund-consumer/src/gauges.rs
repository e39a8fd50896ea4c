//! The gauges of what waits, whichever process should move it: read from the rows, so that a killed process hides nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::runtime::db::Database;
use shared::runtime::ops::Check;
use shared::runtime::tasks::{Outage, every};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::floors::Floors;
use crate::gateway::GatewayName;
use crate::metrics::Metrics;
use crate::store::{self, Standstill};

const PERIOD: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(5);
/// One read that fails is not yet worth a look.
const STALE: Duration = Duration::from_secs(15);

/// When the gauges were last read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LastRead(Arc<Mutex<Instant>>);

impl LastRead {
    /// Counts from now until the first read.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// The line of `/readyz?verbose`.
    pub fn check(&self) -> Check {
        let age = self.at().elapsed();
        Check {
            name: "gauges_read_ago_secs",
            value: age.as_secs().to_string(),
            limit: STALE.as_secs().to_string(),
            over: age > STALE,
        }
    }

    fn now(&self) {
        *self.at() = Instant::now();
    }

    fn at(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for LastRead {
    fn default() -> Self {
        Self::new()
    }
}

/// Keeps the gauges until `stop`, and raises the floors of the scans. While the gauges cannot be read the ages grow by
/// themselves: unknown is not good.
pub async fn run(
    db: Database,
    gateway: GatewayName,
    floors: Floors,
    metrics: Metrics,
    last_read: LastRead,
    stop: CancellationToken,
) {
    let (mut rounds, mut outage) = (every(PERIOD, &stop), Outage::new("reading the gauges"));
    let mut letters_outage = Outage::new("counting the dead letters");
    while rounds.next().await {
        let (from, name) = (floors.clone(), gateway.clone());
        let read = db.run("read_gauges", DEADLINE, move |conn| {
            Box::pin(async move {
                let from = move |range| from.of(range);
                store::read_gauges(conn, name.as_str(), from).await
            })
        });
        match read.await {
            Ok(gauges) => {
                outage.ended();
                last_read.now();
                metrics.rows.parked_attempts.set(gauges.parked);
                for (shown, kind) in metrics.rows.oldest.iter().zip(Standstill::ALL) {
                    shown.set(gauges.age(kind));
                }
                gauges.oldest.iter().for_each(|read| floors.raise(read));
            }
            Err(error) => note_failure(&metrics, &mut outage, &error),
        }
        // A unit of its own: the ages must not depend on another table.
        let letters = db.run("count_dead_letters", DEADLINE, |conn| {
            Box::pin(store::count_dead_letters(conn))
        });
        match letters.await {
            Ok(letters) => {
                letters_outage.ended();
                metrics.rows.dead_letters_waiting.set(letters);
            }
            Err(error) => note_failure(&metrics, &mut letters_outage, &error),
        }
    }
}

fn note_failure(metrics: &Metrics, outage: &mut Outage, error: &Error) {
    let failures = &metrics.work.transient_failures;
    failures.with_label_values(&["census"]).inc();
    outage.failed(error);
}
