//! Opens or closes the gate by what waits in the outbox.

use std::sync::Arc;
use std::time::Instant;

use shared::runtime::db::{Database, DbError};
use shared::runtime::tasks::{Outage, every};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::measurer::{Measurer, PERIOD};
use super::{Known, Limits, State};
use crate::error::Excess;
use crate::metrics::Metrics;
use crate::store::{Backlog, Shown};

/// Decides by the measurement that all apis share. While MySQL does not respond, the last decision stays in force until
/// the measurement is too old: filing fails by itself then.
#[derive(Debug)]
pub(crate) struct Monitor {
    measurer: Measurer,
    decision: Decision,
    metrics: Arc<Metrics>,
    /// When the measurement began that the metrics show.
    seen: Option<OffsetDateTime>,
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
        gauges.refusing.set(1);
        Self {
            measurer: Measurer::new(db),
            decision: Decision {
                limits,
                state,
                metrics: Arc::clone(&metrics),
                logged: None,
            },
            metrics,
            seen: None,
            too_old: false,
            outage: Outage::new("measuring the outbox"),
        }
    }

    /// Measures and decides until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut turns = every(PERIOD, &stop);
        while turns.next().await {
            match stop.run_until_cancelled(self.turn()).await {
                None => return,
                Some(Ok(())) => self.outage.ended(),
                Some(Err(error)) => {
                    self.metrics.backlog.measure_failures.inc();
                    self.outage.failed(&error);
                    self.decision.show();
                }
            }
        }
    }

    async fn turn(&mut self) -> Result<(), DbError> {
        let shown = self.read_and_decide().await?;
        let decision = &mut self.decision;
        let so_far = |counted: &Backlog| decision.refuse_above(counted);
        if self.measurer.measure(&shown, so_far).await? {
            self.read_and_decide().await?;
        }
        Ok(())
    }

    async fn read_and_decide(&mut self) -> Result<Shown, DbError> {
        let asked = Instant::now();
        let shown = self.measurer.read().await?;
        let known = Known::new(&shown, asked);
        // Before the metrics: a test or an operator who reads the metrics may rely on the decision.
        self.decision.decide(&shown, known);
        if let (Some(known), Some(measured)) = (known, shown.measurement)
            && self.seen.replace(measured.at) != Some(measured.at)
        {
            let gauges = &self.metrics.backlog;
            gauges.measure_seconds.set(measured.took.as_secs_f64());
            gauges.bytes.set(gauge(known.backlog.bytes));
            gauges.rows.set(gauge(known.backlog.rows));
            self.show_age(&known);
        }
        Ok(shown)
    }

    /// Logs once when the oldest row gets too old, and once when it is no longer.
    fn show_age(&mut self, known: &Known) {
        let too_old = self.decision.limits.is_too_old(known);
        self.metrics.backlog.oldest_age.set(known.oldest_age);
        self.metrics.backlog.too_old.set(i64::from(too_old));
        let age = known.oldest_age.as_secs_f64();
        match (std::mem::replace(&mut self.too_old, too_old), too_old) {
            (false, true) => tracing::error!(
                outbox.oldest_age_seconds = age,
                outbox.rows = known.backlog.rows,
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

/// Whether filings are refused, for the gate, the metric and the log.
#[derive(Debug)]
struct Decision {
    limits: Limits,
    state: watch::Sender<State>,
    metrics: Arc<Metrics>,
    /// The refusal that was logged last.
    logged: Option<Option<Excess>>,
}

impl Decision {
    fn decide(&mut self, shown: &Shown, known: Option<Known>) {
        let was = self.state.borrow().refusing;
        let refusing = self.limits.refusal(shown, was);
        self.state.send_replace(State { known, refusing });
        self.show();
    }

    /// By our own count, which has not ended.
    fn refuse_above(&mut self, counted: &Backlog) {
        if let Some(excess) = self.limits.above(counted) {
            self.state
                .send_modify(|state| state.refusing = Some(excess));
            self.show();
        }
    }

    /// Also after a failure: a measurement gets too old by itself.
    fn show(&mut self) {
        let state = *self.state.borrow();
        let refusal = state.refusal();
        let refusing = i64::from(refusal.is_some());
        self.metrics.backlog.refusing.set(refusing);
        let starting = self.logged.is_none() && refusal == Some(Excess::Unmeasured);
        if !starting {
            log_refusal(self.logged.replace(refusal), refusal, state.known);
        }
    }
}

/// `was` is `None` at the first decision.
fn log_refusal(was: Option<Option<Excess>>, refusal: Option<Excess>, known: Option<Known>) {
    let backlog = known.map(|known| known.backlog).unwrap_or_default();
    match (was.flatten(), refusal) {
        (None, Some(excess)) => tracing::error!(
            reason = excess.code(),
            outbox.rows = backlog.rows,
            outbox.payload_bytes = backlog.bytes,
            "new filings are refused: too much waits in the outbox, or it is not known how much"
        ),
        (Some(_), None) => tracing::info!(
            outbox.rows = backlog.rows,
            outbox.payload_bytes = backlog.bytes,
            "new filings are accepted again"
        ),
        (None, None) | (Some(_), Some(_)) => {}
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
