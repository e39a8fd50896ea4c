//! Measures the outbox periodically, and opens or closes the gate.
//!
//! On a connection of its own, so that it never takes one from a request or a writer. One shard at a time: no statement
//! runs for long, however much waits. The sum is no snapshot, and need not be one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::domain::ids::Shard;
use shared::runtime::db::{Database, DbError};
use shared::runtime::tasks::{Outage, every};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Limits, State};
use crate::error::Excess;
use crate::metrics::Metrics;
use crate::store::{self, Backlog};

const PAUSE_MIN: Duration = Duration::from_secs(1);
/// A pause is this many times as long as the measurement, of which half to all was CPU (`store::measure_shard`): below
/// 5 % of one of the server's cores for every api process.
const PAUSE_FACTOR: u32 = 20;
/// The longest pause, however many rows there are and however slow the server is. So the api notices at most two minutes
/// and one measurement late that a limit is exceeded. The price: with 10 M rows in memory, measuring takes 7 % of a core
/// (extrapolated: 20 s, 9 s of it CPU).
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(120);
/// For one shard, including the connect. Above the 30 s after which the server ends the scan.
const DEADLINE: Duration = Duration::from_secs(35);

/// Measures and decides. While MySQL does not respond, the last decision stays in force: filing fails by itself then.
#[derive(Debug)]
pub(crate) struct Monitor {
    db: Database,
    limits: Limits,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
    too_old: bool,
    outage: Outage,
}

impl Monitor {
    pub(super) fn new(
        db: &Database,
        limits: Limits,
        metrics: Arc<Metrics>,
        state: watch::Sender<State>,
    ) -> Self {
        let gauges = &metrics.backlog;
        gauges.max_rows.set(gauge(limits.rows));
        gauges.max_bytes.set(gauge(limits.bytes));
        gauges.alarm_age.set(limits.alarm_age.as_secs_f64());
        Self {
            db: db.separate(1),
            limits,
            metrics,
            state,
            too_old: false,
            outage: Outage::new("measuring the outbox"),
        }
    }

    /// Measures and decides until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut turns = every(PAUSE_MIN, &stop);
        while turns.next().await {
            let began = Instant::now();
            match stop.run_until_cancelled(measure(&self.db)).await {
                None => return,
                Some(Ok(backlog)) => {
                    self.outage.ended();
                    self.decide(backlog, began.elapsed());
                }
                Some(Err(error)) => {
                    self.outage.failed(&error);
                    self.keep();
                }
            }
            // Also after a failure: a scan that runs into its deadline must not repeat all the time.
            turns.pause_next(pause_after(began.elapsed()));
        }
    }

    fn decide(&mut self, backlog: Backlog, took: Duration) {
        let was = self.state.borrow().refusing;
        let refusing = self.limits.decide(&backlog, was);
        // Before the metrics: a test or an operator who reads the metrics may rely on the decision.
        self.state.send_replace(State {
            measured: Some((backlog, Instant::now())),
            refusing,
        });
        let gauges = &self.metrics.backlog;
        gauges.measure_seconds.set(took.as_secs_f64());
        gauges.refusing.set(i64::from(refusing.is_some()));
        gauges.bytes.set(gauge(backlog.bytes));
        gauges.rows.set(gauge(backlog.rows));
        log_refusal(was, refusing, &backlog);
        self.show_age(&backlog);
    }

    /// Without a measurement the last decision stays. Only the age grows: an unknown age is not good.
    fn keep(&self) {
        self.metrics.backlog.measure_failures.inc();
        if let Some((backlog, at)) = self.state.borrow().measured {
            let age = backlog.oldest_age + at.elapsed();
            self.metrics.backlog.oldest_age.set(age);
        }
    }

    /// Logs once when the oldest row gets too old, and once when it is no longer.
    fn show_age(&mut self, backlog: &Backlog) {
        let too_old = self.limits.is_too_old(backlog);
        self.metrics.backlog.oldest_age.set(backlog.oldest_age);
        self.metrics.backlog.too_old.set(i64::from(too_old));
        let age = backlog.oldest_age.as_secs_f64();
        match (std::mem::replace(&mut self.too_old, too_old), too_old) {
            (false, true) => tracing::error!(
                outbox.oldest_age_seconds = age,
                outbox.rows = backlog.rows,
                "events wait too long in the outbox: are the relays and Kafka up? Filing goes on"
            ),
            (true, false) => {
                tracing::info!(
                    outbox.oldest_age_seconds = age,
                    "events no longer wait too long"
                );
            }
            (false, false) | (true, true) => {}
        }
    }
}

fn log_refusal(was: Option<Excess>, refusing: Option<Excess>, backlog: &Backlog) {
    match (was, refusing) {
        (None, Some(excess)) => tracing::error!(
            reason = excess.code(),
            outbox.rows = backlog.rows,
            outbox.payload_bytes = backlog.bytes,
            "new filings are refused: too much waits in the outbox"
        ),
        (Some(_), None) => tracing::info!(
            outbox.rows = backlog.rows,
            outbox.payload_bytes = backlog.bytes,
            "new filings are accepted again"
        ),
        (None, None) | (Some(_), Some(_)) => {}
    }
}

fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(PAUSE_FACTOR)
        .clamp(PAUSE_MIN, PAUSE_MAX)
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

async fn measure(db: &Database) -> Result<Backlog, DbError> {
    let mut sum = Backlog::default();
    for shard in Shard::all() {
        let part = db.run("measure_outbox", DEADLINE, move |conn| {
            Box::pin(async move {
                let part = store::measure_shard(conn, shard).await;
                part.map_err(DbError::from)
            })
        });
        let part = part.await?;
        sum = Backlog {
            rows: sum.rows + part.rows,
            bytes: sum.bytes + part.bytes,
            oldest_age: sum.oldest_age.max(part.oldest_age),
        };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_costly_measurement_is_followed_by_a_long_pause() {
        let millis = |took| pause_after(Duration::from_millis(took)).as_millis();
        assert_eq!(
            [0, 50, 100, 2_000, 6_000, 35_000].map(millis),
            [1_000, 1_000, 2_000, 40_000, 120_000, 120_000]
        );
    }
}
