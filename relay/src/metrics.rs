//! Every metric of the relay. Watch `outbox_oldest_age_seconds` first.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use shared::runtime::db::{DbError, DbMetrics};
use shared::runtime::metrics::{Age, Description, MetricSet};
use shared::runtime::tasks::{Outage, chain};

use crate::error::RestartCause;
use crate::publisher::TopicProblem;
use crate::troubled_topics::TroubledTopics;

/// The backlog gauges are read with this period; the age grows by itself when a read is late.
pub(crate) const BACKLOG_PERIOD: Duration = Duration::from_secs(1);

/// From COMMIT to acknowledgement: from the goal (milliseconds) to an outage.
const DELIVERY_BUCKETS: [f64; 13] = [
    0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0, 600.0,
];
/// Values of label `work` of `outbox_database_errors_total`.
const WORK: [&str; 10] = [
    "read",
    "count",
    "predecessors",
    "parked_keys",
    "delete",
    "park",
    "lease",
    "release",
    "leave",
    "census",
];
/// Values of label `code` of `outbox_database_errors_total`.
const CODES: [&str; 11] = [
    "duplicate",
    "lock_conflict",
    "connection_lost",
    "read_only",
    "denied",
    "unavailable",
    "values",
    "statement",
    "no_connection",
    "silent",
    "panicked",
];

/// Handles to the metrics of one process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    set: MetricSet,
    pub oldest_age: Age,
    pub parked_rows: IntGauge,
    pub owned_shards: IntGauge,
    pub paused_shards: IntGauge,
    pub unsettled_rows: IntGauge,
    pub published_rows: IntCounter,
    pub delivery_seconds: Histogram,
    pub deleted_rows: IntCounter,
    pub missing_rows: IntCounter,
    pub late_rows: IntCounter,
    pub held_rows: IntCounter,
    pub held_back_rows: IntGauge,
    pub parkings: IntCounter,
    pub restarts: IntCounterVec,
    pub blocked: IntGaugeVec,
    pub troubled_topics: TroubledTopics,
    /// One of the reasons of `blocked`.
    pub no_broker: IntGauge,
    pub leases_lost: IntCounter,
    pub database_errors: IntCounterVec,
    pub database: DbMetrics,
}

impl Metrics {
    pub fn new() -> Self {
        let set = MetricSet::new();
        let (blocked, restarts, database_errors) = with_labels(&set);
        Self {
            oldest_age: set.age(
                "outbox_oldest_age_seconds",
                "Age of the oldest unpublished row; it grows while MySQL does not respond",
                // One period for the pause, one for the read.
                BACKLOG_PERIOD * 2,
            ),
            parked_rows: set.gauge("outbox_parked_rows", "Rows parked for an operator"),
            owned_shards: set.gauge("outbox_relay_owned_shards", "Shards this relay publishes"),
            paused_shards: set.gauge(
                "outbox_relay_paused_shards",
                "Shards that an operator holds back, whichever relay owned them: no relay publishes their events. Every relay shows the same number",
            ),
            unsettled_rows: set.gauge(
                "outbox_relay_unsettled_rows",
                "Rows in flight or not yet deleted",
            ),
            published_rows: set
                .counter("outbox_published_rows_total", "Rows acknowledged by Kafka"),
            delivery_seconds: set.histogram(
                "outbox_delivery_seconds",
                "From the event's time to the acknowledgement",
                &DELIVERY_BUCKETS,
            ),
            deleted_rows: set.counter(
                "outbox_deleted_rows_total",
                "Rows deleted after acknowledgement",
            ),
            missing_rows: set.counter(
                "outbox_missing_rows_total",
                "Acknowledged rows that were already deleted, by another relay or by hand",
            ),
            late_rows: set.counter(
                "outbox_late_rows_total",
                "Rows that committed below the floor",
            ),
            held_rows: set.counter(
                "outbox_held_rows_total",
                "Times a row waited for its predecessor",
            ),
            held_back_rows: set.gauge(
                "outbox_relay_held_back_rows",
                "Rows older than two seconds that wait for a topic or a partition, and those behind them",
            ),
            parkings: set.counter("outbox_parked_total", "Rows moved to outbox_parked"),
            restarts,
            no_broker: blocked.with_label_values(&["no_broker"]),
            troubled_topics: TroubledTopics::new(&set),
            blocked,
            leases_lost: set.counter(
                "outbox_leases_lost_total",
                "Leases that ended without being handed over",
            ),
            database_errors,
            database: DbMetrics::new(&set),
            set,
        }
    }

    pub fn registry(&self) -> &Registry {
        self.set.registry()
    }

    /// For docs/METRICS.md.
    pub fn descriptions(&self) -> Vec<Description> {
        self.set.descriptions()
    }

    /// Monitors one kind of database work; `name` is its name in logs.
    pub(crate) fn monitor(&self, work: &'static str, name: &'static str) -> WorkMonitor {
        debug_assert!(WORK.contains(&work), "{work} is not among the label values");
        WorkMonitor {
            work,
            outage: Outage::new(name),
            name,
            needs_operator: false,
            errors: self.database_errors.clone(),
        }
    }
}

fn with_labels(set: &MetricSet) -> (IntGaugeVec, IntCounterVec, IntCounterVec) {
    let blocked = set.gauges(
        "outbox_relay_blocked",
        "1 while rows are held back for this reason; with broker_away and no_broker nothing can be sent",
        "reason",
        &[
            &TopicProblem::CODES[..],
            &[TopicProblem::PARTITION_STALLED, "no_broker"],
        ]
        .concat(),
    );
    let restarts = set.counters(
        "outbox_producer_restarts_total",
        "Producers destroyed",
        "cause",
        &RestartCause::CODES,
    );
    let database_errors = set.counters_by(
        "outbox_database_errors_total",
        "Failed units of database work",
        &[("work", &WORK), ("code", &CODES)],
    );
    (blocked, restarts, database_errors)
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts the failures of one kind of database work and logs each outage once.
#[derive(Debug)]
pub(crate) struct WorkMonitor {
    work: &'static str,
    name: &'static str,
    outage: Outage,
    needs_operator: bool,
    errors: IntCounterVec,
}

impl WorkMonitor {
    /// Notes a result. Returns its value; an error is counted and logged.
    pub(crate) fn note<T>(&mut self, result: Result<T, DbError>) -> Option<T> {
        match result {
            Ok(value) => {
                self.outage.ended();
                self.needs_operator = false;
                Some(value)
            }
            Err(error) => {
                self.note_error(&error);
                None
            }
        }
    }

    fn note_error(&mut self, error: &DbError) {
        let code = code(error);
        self.errors.with_label_values(&[self.work, code]).inc();
        self.outage.failed(error);
        if error.failure().needs_a_person() && !self.needs_operator {
            self.needs_operator = true;
            // The relay retries anyway: after the repair of a right or a table it need not be restarted.
            let (work, error) = (self.work, chain(error));
            tracing::error!(
                work,
                code,
                error,
                "{} fails until an operator repairs the cause",
                self.name
            );
        }
    }
}

/// The label value of an error. `silent` is older than [`DbError::code`] and stays, because alerts may use it.
fn code(error: &DbError) -> &'static str {
    match error {
        DbError::DeadlinePassed(_) => "silent",
        error => error.code(),
    }
}
