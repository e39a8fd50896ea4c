//! Every metric of the api. Names and labels are contracts; ids are never labels.

use std::time::Duration;

use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};
use shared::runtime::db::DbMetrics;
use shared::runtime::http_server::ConnectionMetrics;
use shared::runtime::metrics::{Age, Description, MetricSet};
use strum::VariantNames;

use crate::error::{ErrorKind, Excess};
use crate::quota::QuotaExceeded;

/// Registered once per process.
#[derive(Debug)]
pub struct Metrics {
    set: MetricSet,
    pub(crate) db: DbMetrics,
    pub(crate) connections: ConnectionMetrics,
    pub(crate) request_duration: HistogramVec,
    pub(crate) filing: FilingMetrics,
    pub(crate) auth: AuthMetrics,
    pub(crate) backlog: BacklogMetrics,
    pub(crate) streams: StreamMetrics,
    pub(crate) notifications: IntCounterVec,
    pub(crate) broken_trails: IntCounter,
    pub(crate) oldest_unclaimed: Age,
}

#[derive(Debug)]
pub(crate) struct FilingMetrics {
    pub(crate) outcomes: IntCounterVec,
    pub(crate) group_size: Histogram,
    pub(crate) queue_length: IntGauge,
    pub(crate) group_failures: IntCounter,
    pub(crate) lost_commits: IntCounter,
    pub(crate) refused: IntCounterVec,
}

#[derive(Debug)]
pub(crate) struct AuthMetrics {
    pub(crate) refusals: IntCounterVec,
    pub(crate) keys: IntGaugeVec,
    pub(crate) key_reloads: IntCounterVec,
    pub(crate) key_file_usable: IntGauge,
    pub(crate) revoked_tokens: IntGauge,
    pub(crate) revocations_read_at: Gauge,
}

/// Every api shows the same measurement: take the maximum over processes, not the sum.
#[derive(Debug)]
pub(crate) struct BacklogMetrics {
    pub(crate) rows: IntGauge,
    pub(crate) bytes: IntGauge,
    pub(crate) oldest_age: Age,
    pub(crate) max_rows: IntGauge,
    pub(crate) max_bytes: IntGauge,
    pub(crate) alarm_age: Gauge,
    pub(crate) refusing: IntGauge,
    pub(crate) too_old: IntGauge,
    pub(crate) measure_seconds: Gauge,
    pub(crate) measure_failures: IntCounter,
}

#[derive(Debug)]
pub(crate) struct StreamMetrics {
    pub(crate) open: IntGauge,
    pub(crate) watched_returns: IntGauge,
    pub(crate) events: IntCounter,
    pub(crate) poll_seconds: Histogram,
    pub(crate) poll_failures: IntCounter,
    pub(crate) refused: IntCounterVec,
}

/// The oldest unclaimed return is read every five seconds, and one reading may fail.
const UNCLAIMED_GRACE: Duration = Duration::from_secs(15);

impl Metrics {
    pub fn new() -> Self {
        let set = MetricSet::new();
        Self {
            db: DbMetrics::new(&set),
            connections: ConnectionMetrics::new(&set),
            request_duration: set.histograms(
                "http_server_request_duration_seconds",
                "Seconds from a request's headers to its response",
                &[("method", &[]), ("route", &[]), ("status", &[])],
                &[
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
                ],
            ),
            filing: FilingMetrics::new(&set),
            auth: AuthMetrics::new(&set),
            backlog: BacklogMetrics::new(&set),
            streams: StreamMetrics::new(&set),
            notifications: set.counters(
                "gateway_notifications_total",
                "Notifications of the payment provider: the refund was made due for a look-up, is unknown or not waited for, or the signature was refused",
                "result",
                &["due", "unknown", "refused"],
            ),
            broken_trails: set.counter(
                "audit_trail_broken_total",
                "Reads of the audit trail that were refused, because events of a return are missing in the database",
            ),
            oldest_unclaimed: set.age(
                "returns_oldest_unclaimed_seconds",
                "Age of the oldest new return that no consumer has claimed and that needs no review; 0 if there is none; grows by itself while it cannot be measured",
                UNCLAIMED_GRACE,
            ),
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
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The errors that a filing can end with.
const FILING_ERRORS: [ErrorKind; 9] = [
    ErrorKind::UnknownOrder,
    ErrorKind::AlreadyOpen,
    ErrorKind::NotEligible,
    ErrorKind::KeyReused,
    ErrorKind::Busy,
    ErrorKind::BacklogFull,
    ErrorKind::Unavailable,
    ErrorKind::OutcomeUnknown,
    ErrorKind::Internal,
];

impl FilingMetrics {
    fn new(set: &MetricSet) -> Self {
        let mut outcomes = vec!["filed", "replayed"];
        outcomes.extend(FILING_ERRORS.map(ErrorKind::code));
        Self {
            outcomes: set.counters(
                "filing_outcomes_total",
                "Filings by outcome: filed, replayed, or the code of the error",
                "outcome",
                &outcomes,
            ),
            group_size: set.histogram(
                "filing_group_size",
                "Filings in one transaction",
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
            ),
            queue_length: set.gauge("filing_queue_length", "Filings that wait for a transaction"),
            group_failures: set.counter(
                "filing_group_failures_total",
                "Filing transactions that failed: a duplicate, a lock conflict, a lost connection",
            ),
            lost_commits: set.counter(
                "filing_lost_commits_total",
                "Filing transactions whose response to COMMIT was lost",
            ),
            refused: set.counters(
                "filing_refused_total",
                "Filings refused because of the backlog, by the limit; `unmeasured`: it is not known how much waits",
                "reason",
                Excess::VARIANTS,
            ),
        }
    }
}

impl AuthMetrics {
    fn new(set: &MetricSet) -> Self {
        Self {
            refusals: set.counters(
                "auth_refusals_total",
                "Requests refused by authentication or authorization, by reason",
                "reason",
                &[
                    "missing",
                    "malformed",
                    "signature",
                    "algorithm",
                    "time",
                    "not_for_us",
                    "claims",
                    "header",
                    "unknown_key",
                    "unvetted",
                    "undecided",
                    "revoked",
                    "revocations_unknown",
                    "not_honored",
                    "forbidden",
                    "not_yours",
                ],
            ),
            keys: set.gauges(
                "auth_keys",
                "Keys that verify tokens, by use",
                "use",
                &["sig", "biscuit"],
            ),
            key_reloads: set.counters(
                "auth_key_reloads_total",
                "Reloads of the key file after a change; after a failed one the previous keys stay in force",
                "result",
                &["read", "failed"],
            ),
            key_file_usable: set.gauge(
                "auth_key_file_usable",
                "1 if the last read of the key file brought keys to use; 0 from a failed read until one succeeds: the previous keys are in force",
            ),
            revoked_tokens: set.gauge(
                "auth_revoked_tokens",
                "Tokens on the list of revoked tokens",
            ),
            revocations_read_at: set.float_gauge(
                "auth_revocations_read_timestamp_seconds",
                "When the list of revoked tokens was last read, Unix seconds",
            ),
        }
    }
}

/// The age of the oldest row grows by itself if it was not set for this long: the longest pause and the deadline of one
/// shard (`backlog::monitor`).
const AGE_GRACE: Duration = Duration::from_secs(155);

impl BacklogMetrics {
    fn new(set: &MetricSet) -> Self {
        Self {
            rows: set.gauge("outbox_backlog_rows", "Rows in the outbox"),
            bytes: set.gauge("outbox_backlog_bytes", "Bytes of payload in the outbox"),
            oldest_age: set.age(
                "outbox_backlog_oldest_age_seconds",
                "Age of the oldest row in the outbox; grows while it cannot be measured",
                AGE_GRACE,
            ),
            max_rows: set.gauge(
                "outbox_backlog_max_rows",
                "Rows above which filings are refused",
            ),
            max_bytes: set.gauge(
                "outbox_backlog_max_bytes",
                "Bytes above which filings are refused",
            ),
            alarm_age: set.float_gauge(
                "outbox_backlog_alarm_age_seconds",
                "Age of the oldest row above which an alarm is raised",
            ),
            refusing: set.gauge("outbox_backlog_refusing", "1 while new filings are refused, also before the outbox was measured for the first time"),
            too_old: set.gauge(
                "outbox_backlog_too_old",
                "1 while the oldest row is older than the alarm age",
            ),
            measure_seconds: set.float_gauge(
                "outbox_backlog_measure_seconds",
                "Duration of the last measurement",
            ),
            measure_failures: set.counter(
                "outbox_backlog_measure_failures_total",
                "Measurements that failed; the previous decision stays in force until the measurement is ten minutes old, then filings are refused",
            ),
        }
    }
}

impl StreamMetrics {
    fn new(set: &MetricSet) -> Self {
        Self {
            open: set.gauge("streams_open", "Open streams"),
            watched_returns: set.gauge(
                "streams_watched_returns",
                "Returns that at least one stream watches",
            ),
            events: set.counter("streams_events_total", "Status events sent to streams"),
            poll_seconds: set.histogram(
                "streams_look_seconds",
                "Seconds of one poll of the watched returns",
                &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 3.0],
            ),
            poll_failures: set.counter(
                "streams_look_failures_total",
                "Polls that failed; streams wait for the next one",
            ),
            refused: set.counters(
                "streams_refused_total",
                "Streams refused, by the limit",
                "limit",
                QuotaExceeded::VARIANTS,
            ),
        }
    }
}
