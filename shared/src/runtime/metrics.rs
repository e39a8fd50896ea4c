//! The one way to count: each metric is registered once, with its help, and described for docs/METRICS.md.
//!
//! Every series with a known label value exists from the start with 0, because a series that begins at its first
//! increment hides that increment from `rate()`. Ids are never labels.

mod at_scrape;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

pub use self::at_scrape::Age;
use self::at_scrape::{Ages, GaugesReadAtScrape, ReadAtScrape};
use super::telemetry::dropped_lines;
use super::trace;

/// The metrics of one program. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct MetricSet {
    registry: Registry,
    described: Arc<Mutex<Vec<Description>>>,
}

/// What a metric is, for its line in docs/METRICS.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Each label with its known values; no values means that they are open.
    pub labels: Vec<(String, Vec<String>)>,
    pub help: String,
}

const UNIQUE: &str = "metric names and labels are constants, valid, and registered once";

impl MetricSet {
    /// With the metrics that every program has.
    pub fn new() -> Self {
        let set = Self::default();
        set.count_of(
            "log_lines_dropped_total",
            "Log lines dropped, because the reader of the log was too slow",
            dropped_lines,
        );
        set.count_of(
            "trace_spans_exported_total",
            "Spans that the OTLP collector has accepted",
            trace::exported_spans,
        );
        set.count_of(
            "trace_spans_lost_total",
            "Spans thrown away, because the OTLP collector is away, refuses them, or takes them too slowly",
            trace::lost_spans,
        );
        set
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// In the order of registration.
    pub fn descriptions(&self) -> Vec<Description> {
        self.lock().clone()
    }

    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.describe(name, "counter", &[], help);
        self.register(IntCounter::new(name, help))
    }

    /// A counter that is kept elsewhere and read when it is scraped.
    fn count_of(&self, name: &str, help: &str, read: fn() -> u64) {
        self.describe(name, "counter", &[], help);
        let counter = IntCounter::new(name, help).expect(UNIQUE);
        self.add(ReadAtScrape { counter, read });
    }

    /// One counter for each of `values`.
    pub fn counters(&self, name: &str, help: &str, label: &str, values: &[&str]) -> IntCounterVec {
        self.counters_by(name, help, &[(label, values)])
    }

    /// One counter for each combination of the values of several labels.
    pub fn counters_by(&self, name: &str, help: &str, labels: &[(&str, &[&str])]) -> IntCounterVec {
        self.describe(name, "counter", labels, help);
        let counters = IntCounterVec::new(Opts::new(name, help), &names(labels));
        let counters = self.register(counters);
        for combination in combinations(labels) {
            counters.with_label_values(&combination);
        }
        counters
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.describe(name, "gauge", &[], help);
        self.register(IntGauge::new(name, help))
    }

    /// A gauge of fractions, for seconds.
    pub fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.describe(name, "gauge", &[], help);
        self.register(Gauge::new(name, help))
    }

    /// One gauge for each of `values`.
    pub fn gauges(&self, name: &str, help: &str, label: &str, values: &[&str]) -> IntGaugeVec {
        self.describe(name, "gauge", &[(label, values)], help);
        let gauges = self.register(IntGaugeVec::new(Opts::new(name, help), &[label]));
        for value in values {
            gauges.with_label_values(&[value]);
        }
        gauges
    }

    /// Gauges whose label values are not all known beforehand. The caller bounds them, and removes those that end.
    pub fn open_gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.describe(name, "gauge", &open(labels), help);
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// Gauges that are kept elsewhere and read when they are scraped: the values of their labels, and the number.
    pub fn gauges_of<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        read: impl Fn() -> Vec<([String; N], f64)> + Send + Sync + 'static,
    ) {
        self.describe(name, "gauge", &open(&labels), help);
        let names = labels.map(str::to_owned).to_vec();
        let desc = Desc::new(name.to_owned(), help.to_owned(), names, HashMap::new());
        let desc = desc.expect(UNIQUE);
        self.add(GaugesReadAtScrape {
            desc,
            read: Box::new(read),
        });
    }

    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.describe(name, "histogram", &[], help);
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts))
    }

    /// One histogram for each combination of the values of several labels. A label without values is open, such as a
    /// route: its series begin when they are used.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &[&str])],
        buckets: &[f64],
    ) -> HistogramVec {
        self.describe(name, "histogram", labels, help);
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = self.register(HistogramVec::new(opts, &names(labels)));
        for combination in combinations(labels) {
            histograms.with_label_values(&combination);
        }
        histograms
    }

    /// An age in seconds that keeps growing by itself once it was not set for `grace`: a frozen gauge must not look good.
    pub fn age(&self, name: &str, help: &str, grace: Duration) -> Age {
        self.describe(name, "gauge", &[], help);
        let gauge = Gauge::new(name, help).expect(UNIQUE);
        let age = Age::new(gauge.clone(), grace);
        self.add(Ages {
            ages: vec![age.clone()],
            family: gauge,
        });
        age
    }

    /// One [`Age`] for each of `values`, in their order.
    pub fn ages(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: &[&str],
        grace: Duration,
    ) -> Vec<Age> {
        self.describe(name, "gauge", &[(label, values)], help);
        let gauges = GaugeVec::new(Opts::new(name, help), &[label]).expect(UNIQUE);
        let ages: Vec<Age> = values
            .iter()
            .map(|value| Age::new(gauges.with_label_values(&[value]), grace))
            .collect();
        self.add(Ages {
            ages: ages.clone(),
            family: gauges,
        });
        ages
    }

    fn register<C: Clone + Collector + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect(UNIQUE);
        self.add(metric.clone());
        metric
    }

    fn add(&self, collector: impl Collector + 'static) {
        let added = self.registry.register(Box::new(collector));
        added.expect(UNIQUE);
    }

    fn describe(&self, name: &str, kind: &'static str, labels: &[(&str, &[&str])], help: &str) {
        let labels = labels
            .iter()
            .map(|(label, values)| {
                let values = values.iter().map(|value| (*value).to_owned()).collect();
                ((*label).to_owned(), values)
            })
            .collect();
        self.lock().push(Description {
            name: name.to_owned(),
            kind,
            labels,
            help: help.to_owned(),
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Description>> {
        self.described
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn names<'a>(labels: &[(&'a str, &[&str])]) -> Vec<&'a str> {
    labels.iter().map(|(label, _)| *label).collect()
}

fn open<'a>(labels: &[&'a str]) -> Vec<(&'a str, &'static [&'static str])> {
    labels.iter().map(|label| (*label, &[][..])).collect()
}

/// Every combination of the values; none if the values of a label are open.
fn combinations<'a>(labels: &[(&str, &[&'a str])]) -> Vec<Vec<&'a str>> {
    let mut combinations: Vec<Vec<&str>> = vec![Vec::new()];
    for (_, values) in labels {
        let longer = combinations.iter().flat_map(|combination| {
            let with = |value| [combination.as_slice(), &[value]].concat();
            values.iter().copied().map(with)
        });
        combinations = longer.collect();
    }
    combinations
}

/// The section of docs/METRICS.md about one program.
pub fn section(program: &str, descriptions: &[Description]) -> String {
    let mut lines = vec![
        format!("## {program}"),
        String::new(),
        "| name | type | labels | meaning |".to_owned(),
        "| --- | --- | --- | --- |".to_owned(),
    ];
    lines.extend(descriptions.iter().map(|metric| {
        let labels: Vec<String> = metric.labels.iter().map(label_cell).collect();
        format!(
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind,
            labels.join("; "),
            metric.help
        )
    }));
    lines.join("\n") + "\n"
}

fn label_cell((label, values): &(String, Vec<String>)) -> String {
    if values.is_empty() {
        return format!("`{label}`");
    }
    let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
    format!("`{label}`: {}", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(set: &MetricSet, name: &str) -> Vec<f64> {
        let families = set.registry().gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.expect("registered").get_metric();
        metrics
            .iter()
            .map(|metric| metric.get_gauge().get_value())
            .collect()
    }

    #[test]
    fn an_age_that_is_not_set_any_more_grows_by_itself() {
        let set = MetricSet::new();
        let fresh = set.age("fresh_seconds", "Fresh", Duration::from_secs(3600));
        let stale = set.ages(
            "stale_seconds",
            "Stale",
            "kind",
            &["a", "b"],
            Duration::ZERO,
        );
        fresh.set(Duration::from_secs(5));
        stale[1].set(Duration::from_secs(5));
        assert_eq!(shown(&set, "fresh_seconds"), [5.0]);
        let [a, b] = shown(&set, "stale_seconds")[..] else {
            panic!("one series a kind");
        };
        assert!(a > 0.0 && b > 5.0, "{a} {b}");
        assert!(shown(&set, "stale_seconds")[1] > b);
    }

    #[test]
    fn every_known_series_is_there_from_the_start_and_described() {
        let set = MetricSet::default();
        set.counters_by(
            "things_total",
            "Things",
            &[("kind", &["a", "b"]), ("size", &["s", "m", "l"])],
        );
        let of_outcome = ("outcome", &["ok", "failed"][..]);
        set.histograms("step_seconds", "Step", &[of_outcome], &[1.0]);
        set.histograms(
            "work_seconds",
            "Work",
            &[("route", &[]), of_outcome],
            &[1.0],
        );
        let series: Vec<(String, usize)> = set
            .registry()
            .gather()
            .iter()
            .map(|family| (family.name().to_owned(), family.get_metric().len()))
            .collect();
        let expected = [("step_seconds", 2), ("things_total", 6)];
        assert_eq!(
            series,
            expected.map(|(name, count)| (name.to_owned(), count))
        );
        assert_eq!(
            section("program", &set.descriptions()),
            "## program\n\n| name | type | labels | meaning |\n| --- | --- | --- | --- |\n\
             | `things_total` | counter | `kind`: `a`, `b`; `size`: `s`, `m`, `l` | Things |\n\
             | `step_seconds` | histogram | `outcome`: `ok`, `failed` | Step |\n\
             | `work_seconds` | histogram | `route`; `outcome`: `ok`, `failed` | Work |\n"
        );
    }

    #[test]
    fn a_gauge_that_is_read_at_a_scrape_ends_with_what_it_is_about() {
        let set = MetricSet::default();
        let lags = Arc::new(Mutex::new(vec![(["a".to_owned()], 1.0)]));
        let read = Arc::clone(&lags);
        set.gauges_of("lag", "Lag", ["partition"], move || {
            read.lock().expect("whole").clone()
        });
        assert_eq!(shown(&set, "lag"), [1.0]);
        *lags.lock().expect("whole") = vec![(["b".to_owned()], 2.0)];
        assert_eq!(shown(&set, "lag"), [2.0]);
        lags.lock().expect("whole").clear();
        assert!(set.registry().gather().is_empty());
    }
}
