//! Every metric of this program. Ids are never labels.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry,
};
use shared::domain::refund::Settled;
use strum::VariantNames;

use crate::dead_letter::Reason;
use crate::settle::NotSettled;

/// See each field's help text.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub registry: Registry,
    pub messages: IntCounterVec,
    pub dead_letters: IntCounterVec,
    pub claim_seconds: Histogram,
    pub claim_group: Histogram,
    pub open_attempts: IntGauge,
    pub paused: IntGauge,
    pub gateway_calls: IntCounterVec,
    pub gateway_seconds: HistogramVec,
    pub settlements: IntCounterVec,
    pub settle_group: Histogram,
    pub found_waiting: IntCounterVec,
    pub expired_before_call: IntCounter,
    pub transient_failures: IntCounterVec,
    pub permanent_failures: IntCounterVec,
    pub kafka_errors: IntCounter,
    pub rebalances: IntCounter,
    pub rejoined: IntCounter,
    pub inbox_expired: IntCounter,
    pub oldest_seconds: GaugeVec,
    pub parked_attempts: IntGauge,
}

const SECONDS: [f64; 12] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0,
];
const SIZES: [f64; 8] = [1.0, 2.0, 5.0, 20.0, 50.0, 100.0, 200.0, 500.0];

impl Metrics {
    /// Registers everything in a registry of its own.
    pub fn new() -> Self {
        let registry = Registry::new();
        // From the start at 0: a series that begins at its first increment hides it from `rate()`.
        let counters = |name: &str, help: &str, label: &str, known: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), &[label]);
            let made = register(&registry, made);
            for value in known {
                made.with_label_values(&[value]);
            }
            made
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(&registry, Histogram::with_opts(opts))
        };
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help));
        let counter = |name: &str, help: &str| register(&registry, IntCounter::new(name, help));
        Self {
            messages: counters(
                "refund_consumer_messages_total",
                "Records taken, by what became of them",
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
            dead_letters: counters(
                "refund_consumer_dead_letters_total",
                "Records put aside, by reason",
                "reason",
                &Reason::ALL.map(Reason::code),
            ),
            claim_seconds: histogram(
                "refund_consumer_claim_seconds",
                "Time of one claim transaction",
                &SECONDS,
            ),
            claim_group: histogram(
                "refund_consumer_claim_group_size",
                "Returns looked at in one claim",
                &SIZES,
            ),
            open_attempts: gauge(
                "refund_consumer_open_attempts",
                "Attempts this process is carrying to an outcome",
            ),
            paused: gauge(
                "refund_consumer_paused",
                "1 while no messages are taken: no room, or the gateway lets nobody in",
            ),
            gateway_calls: counters(
                "refund_consumer_gateway_calls_total",
                "Gateway calls, by result",
                "result",
                &[],
            ),
            gateway_seconds: register(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "refund_consumer_gateway_call_seconds",
                        "Time of one gateway call",
                    )
                    .buckets(SECONDS.to_vec()),
                    &["operation"],
                ),
            ),
            settlements: counters(
                "refund_consumer_settlements_total",
                "Findings, by what they led to; `held` for each time that somebody held the rows",
                "result",
                &[Settled::VARIANTS, NotSettled::VARIANTS].concat(),
            ),
            settle_group: histogram(
                "refund_consumer_settle_group_size",
                "Findings settled together",
                &SIZES,
            ),
            found_waiting: counters(
                "refund_consumer_found_waiting_total",
                "What the scans found",
                "kind",
                &["due", "approved", "initiated"],
            ),
            expired_before_call: counter(
                "refund_consumer_expired_before_call_total",
                "Attempts that were given up because their turn did not come in time",
            ),
            transient_failures: counters(
                "refund_consumer_transient_failures_total",
                "Transactions run again",
                "step",
                &["claim", "settle", "reconcile", "expire_inbox", "census"],
            ),
            permanent_failures: counters(
                "refund_consumer_permanent_failures_total",
                "Returns or attempts that cannot be written; a person should look",
                "step",
                &["claim", "settle"],
            ),
            kafka_errors: counter(
                "refund_consumer_kafka_errors_total",
                "Errors reported by the Kafka client",
            ),
            rebalances: counter(
                "refund_consumer_rebalances_total",
                "Times partitions were given to this consumer or taken from it",
            ),
            rejoined: counter(
                "refund_consumer_rejoined_total",
                "Kafka clients replaced because they had forgotten all brokers",
            ),
            inbox_expired: counter(
                "refund_consumer_inbox_expired_total",
                "Inbox rows deleted after their retention",
            ),
            oldest_seconds: register(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "refund_consumer_oldest_return_seconds",
                        "How long the return that has not moved for longest has stood in this status (in_review: initiated, for a person); grows while MySQL is away",
                    ),
                    &["status"],
                ),
            ),
            parked_attempts: gauge(
                "refund_consumer_parked_attempts",
                "Attempts that wait for a person",
            ),
            registry,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("names and labels are constants and valid");
    registry
        .register(Box::new(collector.clone()))
        .expect("each name is registered once");
    collector
}
