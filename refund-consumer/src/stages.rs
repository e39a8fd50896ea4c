//! How long a return takes, from its filing to its refund, and in which stage. The one place that observes it.

use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramVec};
use shared::domain::refund::Settled;
use shared::runtime::clock::unix_millis;
use shared::runtime::metrics::MetricSet;
use strum::{IntoStaticStr, VariantNames};

use crate::message::Record;

/// A stage of the way; the value of the metric's label.
#[derive(Debug, Clone, Copy, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
enum Stage {
    Broker,
    Claim,
    Gateway,
    Settle,
}

/// From a claim on an idle machine to a provider that settles days later.
const STAGE_BUCKETS: [f64; 17] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3_600.0,
    21_600.0, 86_400.0,
];
/// From a quick provider to a review that takes days.
const WHOLE_BUCKETS: [f64; 17] = [
    0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0,
    86_400.0, 259_200.0, 604_800.0,
];

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stages {
    stages: HistogramVec,
    whole: Histogram,
}

/// When an attempt was first submitted: now, or some time ago by another process.
#[derive(Debug, Clone, Copy)]
pub struct Submitted {
    ago: Duration,
    noted: Instant,
}

impl Submitted {
    pub fn now() -> Self {
        Self::ago(Duration::ZERO)
    }

    pub fn ago(ago: Duration) -> Self {
        Self {
            ago,
            noted: Instant::now(),
        }
    }

    fn until(self, later: Instant) -> Duration {
        self.ago + later.saturating_duration_since(self.noted)
    }
}

impl Stages {
    /// Registers its metrics.
    pub fn new(set: &MetricSet) -> Self {
        Self {
            stages: set.histograms(
                "refund_consumer_stage_seconds",
                "Seconds of each stage of a refund: broker from the record's timestamp in Kafka until it is taken, claim until its claim is committed, gateway from the first submit to the final answer, settle from the answer until it is committed; broker and claim only for returns that a record led to",
                &[("stage", Stage::VARIANTS)],
                &STAGE_BUCKETS,
            ),
            whole: set.histogram(
                "refund_consumer_filing_to_refunded_seconds",
                "Seconds from the filing of a return to its settlement as refunded, by the database's clock; not what people mark as paid",
                &WHOLE_BUCKETS,
            ),
        }
    }

    /// The claim of this record was committed just now, and led to an attempt.
    pub(crate) fn claimed(&self, record: &Record) {
        // Two clocks, of which one may be set: less than nothing is nothing.
        let millis = |from: i64, to: i64| {
            let millis = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
            Duration::from_millis(millis)
        };
        if record.time_ms >= 0 {
            self.observe(Stage::Broker, millis(record.time_ms, record.taken_ms));
        }
        self.observe(Stage::Claim, millis(record.taken_ms, unix_millis()));
    }

    /// What was learned at `answered` was settled just now.
    pub(crate) fn settled(
        &self,
        settled: Settled,
        submitted: Option<&Submitted>,
        answered: Instant,
    ) {
        if !settled.is_final() {
            return;
        }
        if let Some(submitted) = submitted {
            self.observe(Stage::Gateway, submitted.until(answered));
        }
        self.observe(Stage::Settle, answered.elapsed());
    }

    /// A settlement as refunded was committed, so long after the filing.
    pub(crate) fn refunded(&self, after: Duration) {
        self.whole.observe(after.as_secs_f64());
    }

    fn observe(&self, stage: Stage, time: Duration) {
        let name: &str = stage.into();
        self.stages
            .with_label_values(&[name])
            .observe(time.as_secs_f64());
    }
}
