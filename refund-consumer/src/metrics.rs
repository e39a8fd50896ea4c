//! Every metric of this program. Ids are never labels.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use shared::domain::refund::{AttemptState, Settled};
use shared::runtime::metrics::{Age, MetricSet};
use strum::{IntoEnumIterator, VariantNames};

use crate::attempt::NotSettled;
use crate::gateway::{CALL_OPERATIONS, CALL_RESULTS, CallKind};
use crate::lag::Lag;
use crate::message::Reason;
use crate::stages::Stages;
use crate::store::Standstill;

/// See each metric's help text.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub set: MetricSet,
    pub intake: Intake,
    pub gateway: Gateway,
    pub work: Work,
    pub rows: Rows,
    pub stages: Stages,
}

/// Messages and claims.
#[derive(Debug, Clone)]
pub struct Intake {
    pub messages: IntCounterVec,
    pub dead_letters: IntCounterVec,
    pub claim_seconds: Histogram,
    pub claim_group: Histogram,
    pub open_attempts: IntGauge,
    pub paused: IntGauge,
    pub lag: Lag,
}

/// Calls and what they led to.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub calls: IntCounterVec,
    pub seconds: HistogramVec,
    pub refuses_all: IntGaugeVec,
    pub settlements: IntCounterVec,
    pub settle_group: Histogram,
}

/// The scans, and what failed.
#[derive(Debug, Clone)]
pub struct Work {
    pub found_waiting: IntCounterVec,
    pub expired_before_call: IntCounter,
    pub transient_failures: IntCounterVec,
    pub permanent_failures: IntCounterVec,
    pub kafka_errors: IntCounter,
    pub rebalances: IntCounter,
    pub rejoined: IntCounter,
    pub inbox_expired: IntCounter,
}

/// What waits, as the rows show it.
#[derive(Debug, Clone)]
pub struct Rows {
    /// In the order of [`Standstill::ALL`].
    pub oldest: Vec<Age>,
    pub parked_attempts: IntGauge,
    pub dead_letters_waiting: IntGauge,
    pub attempts: IntGaugeVec,
    pub foreign_attempts: IntGaugeVec,
    pub overdue_rechecks: IntGauge,
    pub oldest_recheck: Age,
}

const SECONDS: [f64; 12] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0,
];
const SIZES: [f64; 8] = [1.0, 2.0, 5.0, 20.0, 50.0, 100.0, 200.0, 500.0];
/// The sweep is made at least once a minute, and may take half a minute.
const SWEEP_GRACE: Duration = Duration::from_secs(100);
/// The gauges are read every 5 s.
const AGE_GRACE: Duration = Duration::from_secs(8);

impl Metrics {
    /// Registers everything.
    pub fn new() -> Self {
        let set = MetricSet::new();
        Self {
            intake: Intake::new(&set),
            gateway: Gateway::new(&set),
            work: Work::new(&set),
            rows: Rows::new(&set),
            stages: Stages::new(&set),
            set,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Intake {
    fn new(set: &MetricSet) -> Self {
        Self {
            messages: set.counters(
                "refund_consumer_messages_total",
                "Records taken, by result",
                "result",
                &[
                    "claimed",
                    "rejected",
                    "awaits_review",
                    "already_moved",
                    "duplicate",
                    "left",
                    "dead_letter",
                ],
            ),
            dead_letters: set.counters(
                "refund_consumer_dead_letters_total",
                "Records that became dead letters, by reason",
                "reason",
                Reason::VARIANTS,
            ),
            claim_seconds: set.histogram(
                "refund_consumer_claim_seconds",
                "Time of one claim transaction",
                &SECONDS,
            ),
            claim_group: set.histogram(
                "refund_consumer_claim_group_size",
                "Returns in one claim",
                &SIZES,
            ),
            open_attempts: set.gauge(
                "refund_consumer_open_attempts",
                "Attempts this process is carrying to an outcome",
            ),
            paused: set.gauge(
                "refund_consumer_paused",
                "1 while no messages are taken: no room, or the gateway accepts no calls",
            ),
            lag: Lag::new(set),
        }
    }
}

impl Gateway {
    fn new(set: &MetricSet) -> Self {
        Self {
            calls: set.counters(
                "refund_consumer_gateway_calls_total",
                "Gateway calls, by result",
                "result",
                &CALL_RESULTS,
            ),
            seconds: set.histograms(
                "refund_consumer_gateway_call_seconds",
                "Time of one gateway call",
                &[("operation", &CALL_OPERATIONS)],
                &SECONDS,
            ),
            refuses_all: set.gauges(
                "refund_consumer_gateway_refuses_all",
                "1 while the gateway refuses the calls of several refunds in a row, or answers them as none of its contract: the settings or the account are wrong, and no refund is parked for it",
                "calls",
                &CallKind::ALL.map(CallKind::as_str),
            ),
            settlements: set.counters(
                "refund_consumer_settlements_total",
                "Settled outcomes, by result; `held` each time that another transaction held the rows",
                "result",
                &[Settled::VARIANTS, NotSettled::VARIANTS].concat(),
            ),
            settle_group: set.histogram(
                "refund_consumer_settle_group_size",
                "Outcomes settled together",
                &SIZES,
            ),
        }
    }
}

impl Work {
    fn new(set: &MetricSet) -> Self {
        Self {
            found_waiting: set.counters(
                "refund_consumer_found_waiting_total",
                "Attempts (due) and returns (approved, initiated) that the scans found",
                "kind",
                &["due", "approved", "initiated"],
            ),
            expired_before_call: set.counter(
                "refund_consumer_expired_before_call_total",
                "Attempts that were given up because no call permit became free in time",
            ),
            transient_failures: set.counters(
                "refund_consumer_transient_failures_total",
                "Uses of the database that failed and are tried again",
                "step",
                &[
                    "claim",
                    "settle",
                    "reconcile",
                    "sweep",
                    "expire_inbox",
                    "census",
                ],
            ),
            permanent_failures: set.counters(
                "refund_consumer_permanent_failures_total",
                "Returns or attempts that cannot be written; a person should look",
                "step",
                &["claim", "settle"],
            ),
            kafka_errors: set.counter(
                "refund_consumer_kafka_errors_total",
                "Errors reported by the Kafka client",
            ),
            rebalances: set.counter(
                "refund_consumer_rebalances_total",
                "Times that partitions were assigned to this consumer or revoked",
            ),
            rejoined: set.counter(
                "refund_consumer_rejoined_total",
                "Kafka clients replaced because they had forgotten all brokers",
            ),
            inbox_expired: set.counter(
                "refund_consumer_inbox_expired_total",
                "Inbox rows deleted after their retention",
            ),
        }
    }
}

impl Rows {
    fn new(set: &MetricSet) -> Self {
        Self {
            oldest: set.ages(
                "refund_consumer_oldest_return_seconds",
                "For each status, the age of the return that has not moved for longest (in_review: initiated, waits for a person); grows by itself while MySQL is away",
                "status",
                &Standstill::ALL.map(Standstill::code),
                AGE_GRACE,
            ),
            parked_attempts: set.gauge(
                "refund_consumer_parked_attempts",
                "Attempts that wait for a person",
            ),
            dead_letters_waiting: set.gauge(
                "refund_consumer_dead_letters_waiting",
                "Dead letters that nobody has redriven or discarded yet, of every consumer; counted up to 10000",
            ),
            attempts: set.gauges(
                "refund_consumer_attempts",
                "Attempts that wait, of every GATEWAY_NAME, by state; parked ones wait for a person; counted once a minute, up to 100000 of each state",
                "state",
                &AttemptState::iter().filter(|state| state.waits()).map(AttemptState::as_str).collect::<Vec<_>>(),
            ),
            foreign_attempts: set.gauges(
                "refund_consumer_foreign_attempts",
                "Due attempts of another GATEWAY_NAME than this consumer's, by state: they are left alone",
                "state",
                &["claimed", "sent", "pending", "unknown"],
            ),
            overdue_rechecks: set.gauge(
                "refund_consumer_overdue_rechecks",
                "Paid attempts of every GATEWAY_NAME whose look-up was due more than an hour ago: nobody learns whether the provider has taken them back",
            ),
            oldest_recheck: set.age(
                "refund_consumer_oldest_recheck_seconds",
                "For how long the oldest of refund_consumer_overdue_rechecks has been due; 0 if there is none; grows by itself while MySQL is away",
                SWEEP_GRACE,
            ),
        }
    }
}
