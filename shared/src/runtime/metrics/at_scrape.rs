//! Metrics whose value is computed when they are scraped.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, IntCounter, Opts};

#[cfg(doc)]
use super::MetricSet;
use super::UNIQUE;

/// See [`MetricSet::age`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Age {
    gauge: Gauge,
    grace: Duration,
    known: Arc<Mutex<(Duration, Instant)>>,
}

impl Age {
    pub(super) fn new(gauge: Gauge, grace: Duration) -> Self {
        Self {
            gauge,
            grace,
            known: Arc::new(Mutex::new((Duration::ZERO, Instant::now()))),
        }
    }

    /// The age as of now.
    pub fn set(&self, age: Duration) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = (age, Instant::now());
    }

    /// What a scrape shows now.
    pub fn get(&self) -> Duration {
        let (age, at) = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown_for = at.elapsed();
        if unknown_for > self.grace {
            age + unknown_for
        } else {
            age
        }
    }
}

/// Computes the ages of one metric when they are scraped.
pub(super) struct Ages<C> {
    pub(super) ages: Vec<Age>,
    pub(super) family: C,
}

impl<C: Collector> Collector for Ages<C> {
    fn desc(&self) -> Vec<&Desc> {
        self.family.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for age in &self.ages {
            age.gauge.set(age.get().as_secs_f64());
        }
        self.family.collect()
    }
}

/// See [`MetricSet::count_of`].
pub(super) struct ReadAtScrape {
    pub(super) counter: IntCounter,
    pub(super) read: fn() -> u64,
}

impl Collector for ReadAtScrape {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.counter.reset();
        self.counter.inc_by((self.read)());
        self.counter.collect()
    }
}

/// See [`MetricSet::gauges_of`].
pub(super) struct GaugesReadAtScrape<const N: usize> {
    pub(super) desc: Desc,
    pub(super) read: ReadGauges<N>,
}

pub(super) type ReadGauges<const N: usize> = Box<dyn Fn() -> Vec<([String; N], f64)> + Send + Sync>;

impl<const N: usize> Collector for GaugesReadAtScrape<N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    /// Builds the whole family for each scrape, so that a series that has ended is gone, and two scrapes do not disturb each other.
    fn collect(&self) -> Vec<MetricFamily> {
        let opts = Opts::new(&self.desc.fq_name, &self.desc.help);
        let labels: Vec<&str> = self
            .desc
            .variable_labels
            .iter()
            .map(String::as_str)
            .collect();
        let gauges = GaugeVec::new(opts, &labels).expect(UNIQUE);
        for (values, number) in (self.read)() {
            gauges.with_label_values(&values).set(number);
        }
        gauges.collect()
    }
}
