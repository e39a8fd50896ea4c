//! Every metric of the api, with its unit. Ids are never labels.

mod streams;

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

pub(crate) use self::streams::StreamMetrics;

/// Registered once per process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `http_server_request_duration_seconds{method,route,status}`.
    pub request_duration: HistogramVec,
    /// `filing_outcomes_total{outcome}`: `filed`, `replayed`, or the code of the error.
    pub filing_outcomes: IntCounterVec,
    /// `filing_group_size`: filings taken into one transaction.
    pub group_size: Histogram,
    /// `filing_queue_length`: filings waiting for a transaction.
    pub queue_length: IntGauge,
    /// `filing_group_failures_total`: transactions that did not answer everybody: a duplicate, a lock conflict, a lost
    /// connection. Their requests were run again, refused, or looked up.
    pub group_failures: IntCounter,
    /// `filing_lost_commits_total`: COMMITs whose answer was lost and that were looked up.
    pub lost_commits: IntCounter,
    pub(crate) auth: AuthMetrics,
    pub(crate) backlog: BacklogMetrics,
    pub(crate) streams: StreamMetrics,
}

impl Metrics {
    /// # Panics
    /// Never: names are distinct and valid.
    pub fn new() -> Self {
        let registry = Registry::new();
        let metrics = Self {
            request_duration: HistogramVec::new(
                HistogramOpts::new(
                    "http_server_request_duration_seconds",
                    "Seconds from a request's headers to its answer.",
                )
                .buckets(vec![
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
                ]),
                &["method", "route", "status"],
            )
            .expect(VALID),
            filing_outcomes: IntCounterVec::new(
                Opts::new("filing_outcomes_total", "Filings by how they ended."),
                &["outcome"],
            )
            .expect(VALID),
            group_size: Histogram::with_opts(
                HistogramOpts::new("filing_group_size", "Filings taken into one transaction.")
                    .buckets(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]),
            )
            .expect(VALID),
            queue_length: IntGauge::new(
                "filing_queue_length",
                "Filings waiting for a transaction.",
            )
            .expect(VALID),
            group_failures: IntCounter::new(
                "filing_group_failures_total",
                "Filing transactions that did not answer everybody: a duplicate, a lock conflict, a lost connection.",
            )
            .expect(VALID),
            lost_commits: IntCounter::new(
                "filing_lost_commits_total",
                "COMMITs whose answer was lost and that were looked up.",
            )
            .expect(VALID),
            auth: AuthMetrics::new(&registry),
            backlog: BacklogMetrics::new(&registry),
            streams: StreamMetrics::new(&registry),
            registry,
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let collectors: [Box<dyn prometheus::core::Collector>; 6] = [
            Box::new(self.request_duration.clone()),
            Box::new(self.filing_outcomes.clone()),
            Box::new(self.group_size.clone()),
            Box::new(self.queue_length.clone()),
            Box::new(self.group_failures.clone()),
            Box::new(self.lost_commits.clone()),
        ];
        for collector in collectors {
            self.registry.register(collector).expect(VALID);
        }
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Who is let in, by which keys, and who no more.
#[derive(Debug)]
pub(crate) struct AuthMetrics {
    /// `auth_refusals_total{reason}`: callers that were not let in, or not allowed what they asked.
    pub(crate) refusals: IntCounterVec,
    /// `auth_keys{use}`: keys that verify tokens, of JWTs (`sig`) and of Biscuits.
    pub(crate) keys: IntGaugeVec,
    /// `auth_key_reloads_total{result}`: `failed` leaves the keys of before in force.
    pub(crate) key_reloads: IntCounterVec,
    /// `auth_revoked_tokens`: on the list.
    pub(crate) revoked_tokens: IntGauge,
    /// `auth_revocations_read_timestamp_seconds`: when the list was read for the last time, Unix seconds.
    pub(crate) revocations_read_at: Gauge,
}

impl AuthMetrics {
    fn new(registry: &Registry) -> Self {
        let metrics = Self {
            refusals: IntCounterVec::new(
                Opts::new(
                    "auth_refusals_total",
                    "Callers that were not let in, or not allowed what they asked, by why.",
                ),
                &["reason"],
            )
            .expect(VALID),
            keys: IntGaugeVec::new(
                Opts::new("auth_keys", "Keys that verify tokens, by use."),
                &["use"],
            )
            .expect(VALID),
            key_reloads: IntCounterVec::new(
                Opts::new(
                    "auth_key_reloads_total",
                    "Readings of the key file after a change; failed leaves the keys of before in force.",
                ),
                &["result"],
            )
            .expect(VALID),
            revoked_tokens: IntGauge::new("auth_revoked_tokens", "Tokens on the list of revoked ones.")
                .expect(VALID),
            revocations_read_at: Gauge::new(
                "auth_revocations_read_timestamp_seconds",
                "When the list of revoked tokens was read for the last time, Unix seconds.",
            )
            .expect(VALID),
        };
        let collectors: [Box<dyn prometheus::core::Collector>; 5] = [
            Box::new(metrics.refusals.clone()),
            Box::new(metrics.keys.clone()),
            Box::new(metrics.key_reloads.clone()),
            Box::new(metrics.revoked_tokens.clone()),
            Box::new(metrics.revocations_read_at.clone()),
        ];
        for collector in collectors {
            registry.register(collector).expect(VALID);
        }
        metrics
    }
}

/// What waits in the outbox, what may, and what follows from it. Each api measures for itself: take the maximum over
/// processes, not the sum.
#[derive(Debug)]
pub(crate) struct BacklogMetrics {
    pub(crate) rows: IntGauge,
    pub(crate) bytes: IntGauge,
    /// Keeps growing while MySQL does not answer: a frozen gauge must not look good.
    pub(crate) oldest_age: Gauge,
    pub(crate) max_rows: IntGauge,
    pub(crate) max_bytes: IntGauge,
    pub(crate) alarm_age: Gauge,
    /// 1 while new filings are refused.
    pub(crate) refusing: IntGauge,
    /// 1 while the oldest row is older than the alarm age. Never a reason to refuse.
    pub(crate) too_old: IntGauge,
    /// How long the last measurement took.
    pub(crate) measure_seconds: Gauge,
    pub(crate) measure_failures: IntCounter,
    refused: IntCounterVec,
}

impl BacklogMetrics {
    fn new(registry: &Registry) -> Self {
        let int_gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect(VALID);
            registry.register(Box::new(gauge.clone())).expect(VALID);
            gauge
        };
        let gauge = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help).expect(VALID);
            registry.register(Box::new(gauge.clone())).expect(VALID);
            gauge
        };
        let refused = IntCounterVec::new(
            Opts::new(
                "filing_refused_total",
                "Filings refused because of the backlog, by the limit.",
            ),
            &["reason"],
        )
        .expect(VALID);
        let measure_failures = IntCounter::new(
            "outbox_backlog_measure_failures_total",
            "Measurements without a result; the decision before them stands.",
        )
        .expect(VALID);
        for collector in [
            Box::new(refused.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(measure_failures.clone()),
        ] {
            registry.register(collector).expect(VALID);
        }
        Self {
            rows: int_gauge("outbox_backlog_rows", "Rows in the outbox."),
            bytes: int_gauge("outbox_backlog_bytes", "Bytes of payload in the outbox."),
            oldest_age: gauge(
                "outbox_backlog_oldest_age_seconds",
                "Age of the oldest row in the outbox.",
            ),
            max_rows: int_gauge(
                "outbox_backlog_max_rows",
                "Rows above which filings are refused.",
            ),
            max_bytes: int_gauge(
                "outbox_backlog_max_bytes",
                "Bytes above which filings are refused.",
            ),
            alarm_age: gauge(
                "outbox_backlog_alarm_age_seconds",
                "Age above which the oldest row alarms.",
            ),
            refusing: int_gauge(
                "outbox_backlog_refusing",
                "1 while new filings are refused.",
            ),
            too_old: int_gauge(
                "outbox_backlog_too_old",
                "1 while the oldest row is older than the alarm age.",
            ),
            measure_seconds: gauge(
                "outbox_backlog_measure_seconds",
                "How long the last measurement took.",
            ),
            measure_failures,
            refused,
        }
    }

    pub(crate) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }
}

const VALID: &str = "metric names are distinct and valid";
