//! What a running consumer shows at `/metrics`.

use std::collections::BTreeMap;

use prometheus::TextEncoder;

use super::Running;

impl Running {
    /// The series of a metric, or of `…_count` and `…_sum` of a histogram: the text of its labels, and its value.
    pub(crate) fn shown(&self, metric: &str) -> BTreeMap<String, f64> {
        let families = self.metrics.set.registry().gather();
        let text = TextEncoder::new().encode_to_string(&families);
        let text = text.expect("a text");
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(metric)?;
            let is_whole = labels.is_empty() || labels.starts_with('{');
            is_whole.then(|| (labels.to_owned(), value.parse().expect("a number")))
        });
        series.collect()
    }

    /// The sum over all series of a metric.
    pub(crate) fn total(&self, metric: &str) -> f64 {
        self.shown(metric).values().sum()
    }
}
