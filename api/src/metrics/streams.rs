//! Streams of events, and the looks at the returns that they watch.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::VALID;
use crate::slots::Full;

#[derive(Debug)]
pub(crate) struct StreamMetrics {
    pub(crate) open: IntGauge,
    pub(crate) watched_returns: IntGauge,
    pub(crate) events: IntCounter,
    pub(crate) look_seconds: Histogram,
    pub(crate) look_failures: IntCounter,
    refused: IntCounterVec,
}

impl StreamMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let look_seconds = HistogramOpts::new(
            "streams_look_seconds",
            "Seconds that one look at the watched returns took.",
        )
        .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 3.0]);
        let refused = Opts::new("streams_refused_total", "Streams not opened, by the limit.");
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect(VALID);
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect(VALID);
        let metrics = Self {
            open: gauge("streams_open", "Streams that are open."),
            watched_returns: gauge("streams_watched_returns", "Returns looked at, once each."),
            events: counter("streams_events_total", "Status events sent to streams."),
            look_seconds: Histogram::with_opts(look_seconds).expect(VALID),
            look_failures: counter(
                "streams_look_failures_total",
                "Looks without a result; streams wait meanwhile.",
            ),
            refused: IntCounterVec::new(refused, &["limit"]).expect(VALID),
        };
        let collectors: [Box<dyn prometheus::core::Collector>; 6] = [
            Box::new(metrics.open.clone()),
            Box::new(metrics.watched_returns.clone()),
            Box::new(metrics.events.clone()),
            Box::new(metrics.look_seconds.clone()),
            Box::new(metrics.look_failures.clone()),
            Box::new(metrics.refused.clone()),
        ];
        for collector in collectors {
            registry.register(collector).expect(VALID);
        }
        metrics
    }

    pub(crate) fn refused(&self, full: Full) {
        let limit = match full {
            Full::User => "caller",
            Full::All => "all",
        };
        self.refused.with_label_values(&[limit]).inc();
    }
}
