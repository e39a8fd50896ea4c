//! Measures the outbox again and again, and decides by it.
//!
//! On connections of its own, so that it never takes one from the pool or from a writer. A shard at a time: no
//! statement runs for long, however much waits. The sum is no snapshot, and needs not to be one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::domain::ids::Shard;
use shared::runtime::db::connect;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection, MySqlConnection};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Backlog, Excess, Limits, State};
use crate::metrics::Metrics;
use crate::reading::{ReadError, in_time};
use crate::store;

const PAUSE_MIN: Duration = Duration::from_secs(1);
/// A pause is this many times what the measurement took, of which half to all was CPU (`store::measure_shard`): below
/// 5 % of one of the server's cores for every api process.
const PAUSE_FACTOR: u32 = 20;
/// Neither millions of rows nor a slow minute of the server stretch the pause further: a limit that is passed is
/// noticed two minutes and one measurement late at most. The price: at 10 M rows in memory measuring takes 7 % of a
/// core (extrapolated: 20 s, 9 s of it CPU).
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(120);
/// For one shard, connecting included. Above the 30 s after which the server gives a scan up.
const DEADLINE: Duration = Duration::from_secs(35);

/// The one who measures. While MySQL does not answer the last decision stands: filing fails by itself then.
#[derive(Debug)]
pub(crate) struct Meter {
    options: MySqlConnectOptions,
    limits: Limits,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
    too_old: bool,
    failing: bool,
}

impl Meter {
    pub(super) fn new(
        options: MySqlConnectOptions,
        limits: Limits,
        metrics: Arc<Metrics>,
        state: watch::Sender<State>,
    ) -> Self {
        let shown = &metrics.backlog;
        shown.max_rows.set(gauge(limits.rows));
        shown.max_bytes.set(gauge(limits.bytes));
        shown.alarm_age.set(limits.alarm_age.as_secs_f64());
        Self {
            options,
            limits,
            metrics,
            state,
            too_old: false,
            failing: false,
        }
    }

    /// Measures and decides until `closing`.
    pub(crate) async fn run(mut self, closing: CancellationToken) {
        loop {
            let began = Instant::now();
            match closing.run_until_cancelled(measure(&self.options)).await {
                None => return,
                Some(Ok(backlog)) => self.decide(backlog, began.elapsed()),
                Some(Err(error)) => self.keep(&error),
            }
            let pause = sleep(pause_after(began.elapsed()));
            if closing.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    fn decide(&mut self, backlog: Backlog, took: Duration) {
        let was = self.state.borrow().refusing;
        let refusing = self.limits.judge(&backlog, was);
        // First: whoever reads the metrics below may rely on the decision.
        self.state.send_replace(State {
            measured: Some((backlog, Instant::now())),
            refusing,
        });
        let shown = &self.metrics.backlog;
        shown.measure_seconds.set(took.as_secs_f64());
        shown.refusing.set(i64::from(refusing.is_some()));
        shown.bytes.set(gauge(backlog.bytes));
        shown.rows.set(gauge(backlog.rows));
        if std::mem::take(&mut self.failing) {
            tracing::info!("the outbox is measured again");
        }
        tell_refusal(was, refusing, &backlog);
        self.tell_age(&backlog);
    }

    /// Nothing was learned: nothing is decided. Only the age goes on, unknown is not good.
    fn keep(&mut self, error: &ReadError) {
        self.metrics.backlog.measure_failures.inc();
        if !std::mem::replace(&mut self.failing, true) {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, cause, "the outbox cannot be measured, the last decision stands");
        }
        let measured = self.state.borrow().measured;
        if let Some((mut backlog, at)) = measured {
            backlog.oldest_age += at.elapsed();
            let age = backlog.oldest_age.as_secs_f64();
            self.metrics.backlog.oldest_age.set(age);
        }
    }

    /// One line when the oldest row gets too old and one when it is not any more.
    fn tell_age(&mut self, backlog: &Backlog) {
        let too_old = self.limits.is_too_old(backlog);
        let age = backlog.oldest_age.as_secs_f64();
        self.metrics.backlog.oldest_age.set(age);
        self.metrics.backlog.too_old.set(i64::from(too_old));
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

fn tell_refusal(was: Option<Excess>, refusing: Option<Excess>, backlog: &Backlog) {
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

/// Cancel-safe: what runs is aborted with its connection, which nobody else uses.
async fn measure(options: &MySqlConnectOptions) -> Result<Backlog, ReadError> {
    let connecting = options.clone();
    let mut conn = in_time(DEADLINE, async move { connect(&connecting).await }).await?;
    let mut sum = Backlog::default();
    for shard in Shard::all() {
        let part;
        (conn, part) = in_time(DEADLINE, measured_shard(conn, shard)).await?;
        sum = Backlog {
            rows: sum.rows + part.rows,
            bytes: sum.bytes + part.bytes,
            oldest_age: sum.oldest_age.max(part.oldest_age),
        };
    }
    // The server ends the session by itself if this fails.
    let _ = in_time(DEADLINE, conn.close()).await;
    Ok(sum)
}

async fn measured_shard(
    mut conn: MySqlConnection,
    shard: Shard,
) -> sqlx::Result<(MySqlConnection, Backlog)> {
    let part = store::measure_shard(&mut conn, shard).await?;
    Ok((conn, part))
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
