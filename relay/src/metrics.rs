//! Every metric of the relay. First signal: `outbox_oldest_age_seconds`.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::error::{Failure, StoreError};
use crate::publisher::TopicTrouble;

/// Commit to acknowledgement: from the goal (milliseconds) to an outage.
const DELIVERY_BUCKETS: [f64; 13] = [
    0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0, 600.0,
];

/// Handles to the metrics of one process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Keeps growing while MySQL does not answer: a frozen gauge must not look good.
    pub oldest_age_seconds: Gauge,
    pub parked_rows: IntGauge,
    pub owned_shards: IntGauge,
    /// In flight, or acknowledged and not yet deleted.
    pub unsettled_rows: IntGauge,
    pub published_rows: IntCounter,
    pub delivery_seconds: Histogram,
    pub deleted_rows: IntCounter,
    /// Rows that were gone before we deleted them: another relay was at work, or somebody's hand.
    pub missing_rows: IntCounter,
    pub late_rows: IntCounter,
    pub held_rows: IntCounter,
    pub parkings: IntCounter,
    pub restarts: IntCounterVec,
    /// 1 while nothing can be sent for this reason: a person should look.
    pub blocked: IntGaugeVec,
    /// The one of them that each delivery clears.
    pub no_broker: IntGauge,
    pub leases_lost: IntCounter,
    database_errors: IntCounterVec,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let blocked = gauges(
            r,
            "outbox_relay_blocked",
            "1 while nothing can be sent",
            &["reason"],
        );
        let restarts = counters(
            r,
            "outbox_producer_restarts_total",
            "Producers destroyed",
            &["cause"],
        );
        // From the start at 0: a series that begins at its first increment hides it from `rate()`.
        for cause in Failure::CODES {
            restarts.with_label_values(&[cause]);
        }
        for reason in TopicTrouble::CODES {
            blocked.with_label_values(&[reason]);
        }
        Self {
            oldest_age_seconds: gauge(
                r,
                "outbox_oldest_age_seconds",
                "Age of the oldest unpublished row",
            ),
            parked_rows: int_gauge(r, "outbox_parked_rows", "Rows parked for a person"),
            owned_shards: int_gauge(
                r,
                "outbox_relay_owned_shards",
                "Shards this relay publishes",
            ),
            unsettled_rows: int_gauge(
                r,
                "outbox_relay_unsettled_rows",
                "Rows in flight or not yet deleted",
            ),
            published_rows: counter(
                r,
                "outbox_published_rows_total",
                "Rows acknowledged by Kafka",
            ),
            delivery_seconds: histogram(
                r,
                "outbox_delivery_seconds",
                "From the event's time to the acknowledgement",
            ),
            deleted_rows: counter(
                r,
                "outbox_deleted_rows_total",
                "Rows deleted after acknowledgement",
            ),
            missing_rows: counter(
                r,
                "outbox_missing_rows_total",
                "Acknowledged rows that somebody else had deleted",
            ),
            late_rows: counter(
                r,
                "outbox_late_rows_total",
                "Rows that committed below the floor",
            ),
            held_rows: counter(
                r,
                "outbox_held_rows_total",
                "Times a row waited for its predecessor",
            ),
            parkings: counter(r, "outbox_parked_total", "Rows moved to outbox_parked"),
            restarts,
            no_broker: blocked.with_label_values(&["no_broker"]),
            blocked,
            leases_lost: counter(
                r,
                "outbox_leases_lost_total",
                "Leases that ended without being given up",
            ),
            database_errors: counters(
                r,
                "outbox_database_errors_total",
                "Failed units of database work",
                &["work", "code"],
            ),
            registry,
        }
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts and logs a failed unit of database work, where it is handled.
    pub fn database_error(&self, work: &'static str, error: &StoreError) {
        self.database_errors
            .with_label_values(&[work, error.code()])
            .inc();
        let (code, error) = (error.code(), (error.is_transient(), chain(error)));
        match error {
            (true, error) => {
                tracing::warn!(work, code, error, "database work failed, it is tried again")
            }
            // It is tried again all the same: whoever mends a right or a table need not restart every relay.
            (false, error) => tracing::error!(
                work,
                code,
                error,
                "database work failed, and will until somebody mends it"
            ),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

const UNIQUE: &str = "metric names are valid and each is registered once";

fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::new(name, help).expect(UNIQUE);
    registry.register(Box::new(gauge.clone())).expect(UNIQUE);
    gauge
}

fn int_gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect(UNIQUE);
    registry.register(Box::new(gauge.clone())).expect(UNIQUE);
    gauge
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::new(name, help).expect(UNIQUE);
    registry.register(Box::new(counter.clone())).expect(UNIQUE);
    counter
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let counters = IntCounterVec::new(Opts::new(name, help), labels).expect(UNIQUE);
    registry.register(Box::new(counters.clone())).expect(UNIQUE);
    counters
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect(UNIQUE);
    registry.register(Box::new(gauges.clone())).expect(UNIQUE);
    gauges
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Histogram {
    let opts = HistogramOpts::new(name, help).buckets(DELIVERY_BUCKETS.to_vec());
    let histogram = Histogram::with_opts(opts).expect(UNIQUE);
    registry
        .register(Box::new(histogram.clone()))
        .expect(UNIQUE);
    histogram
}
