//! Which topics are in trouble, for operators: a metric, and a line of `/readyz?verbose`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGaugeVec;
use shared::runtime::metrics::MetricSet;
use shared::runtime::ops::Check;

/// Topics with the code of their trouble, and how many of their partitions it is about.
pub(crate) type Troubles = BTreeMap<(String, &'static str), i64>;

/// The relay bounds how many there are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TroubledTopics {
    gauges: IntGaugeVec,
    shown: Arc<Mutex<Troubles>>,
}

impl TroubledTopics {
    pub(crate) fn new(set: &MetricSet) -> Self {
        let help = "Topics whose rows are held back, by topic and reason; no series means none. With partition_stalled the \
                    number of partitions that acknowledge nothing";
        Self {
            gauges: set.open_gauges("outbox_relay_troubled_topic", help, &["topic", "reason"]),
            shown: Arc::default(),
        }
    }

    pub(crate) fn set(&self, troubles: Troubles) {
        let mut shown = self.lock();
        if *shown == troubles {
            return;
        }
        for (topic, reason) in shown.keys() {
            // A series that is not there needs no removal.
            let _ = self.gauges.remove_label_values(&[topic.as_str(), reason]);
        }
        for ((topic, reason), count) in &troubles {
            self.gauges.with_label_values(&[topic, *reason]).set(*count);
        }
        *shown = troubles;
    }

    /// The line of `/readyz?verbose`.
    pub(crate) fn check(&self) -> Check {
        let shown = self.lock();
        let named = shown
            .keys()
            .map(|(topic, reason)| format!("{topic:?}({reason})"));
        let value = match shown.is_empty() {
            true => "none".to_owned(),
            false => named.collect::<Vec<_>>().join(","),
        };
        Check {
            name: "troubled_topics",
            value,
            limit: "none".to_owned(),
            over: !shown.is_empty(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Troubles> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
