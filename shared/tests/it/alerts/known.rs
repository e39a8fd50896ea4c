//! The metrics of docs/METRICS.md, which is generated from the code.

use std::collections::BTreeMap;

use shared::test_support::promql::Selector;

const METRICS: &str = include_str!("../../../../docs/METRICS.md");

/// The known values of each label; none means that they are open.
type Labels = BTreeMap<String, Vec<String>>;

/// By metric, then by program.
#[derive(Debug)]
pub(super) struct Metrics(BTreeMap<String, BTreeMap<String, Labels>>);

impl Metrics {
    pub(super) fn read() -> Self {
        let mut metrics: BTreeMap<String, BTreeMap<String, Labels>> = BTreeMap::new();
        let mut program = "";
        for line in METRICS.lines() {
            program = line.strip_prefix("## ").unwrap_or(program);
            let cells: Vec<&str> = line.split(" | ").collect();
            let [name, kind, labels, ..] = &cells[..] else {
                continue;
            };
            let Some(name) = name.strip_prefix("| `") else {
                continue;
            };
            let name = name.trim_end_matches('`');
            let suffixes: &[&str] = match *kind {
                "histogram" => &["_count", "_sum", "_bucket"],
                _ => &[""],
            };
            for suffix in suffixes {
                let of_programs = metrics.entry(format!("{name}{suffix}")).or_default();
                of_programs.insert(program.to_owned(), read_labels(labels));
            }
        }
        // Prometheus' own: whether the scrape succeeded.
        let programs = ["returns-api", "outbox-relay", "refund-consumer"];
        let up = programs.map(|program| (program.to_owned(), Labels::new()));
        metrics.insert("up".to_owned(), BTreeMap::from(up));
        assert!(metrics.len() > 80, "{} metrics were found", metrics.len());
        Self(metrics)
    }

    pub(super) fn has_label(&self, metric: &str, label: &str) -> bool {
        let of_programs = self.0.get(metric).into_iter().flat_map(BTreeMap::values);
        is_of_every_target(label)
            || (label == "le" && metric.ends_with("_bucket"))
            || of_programs
                .into_iter()
                .any(|labels| labels.contains_key(label))
    }

    /// What is wrong with a selector, if anything.
    pub(super) fn problem(&self, selector: &Selector) -> Option<String> {
        let Some(of_programs) = self.0.get(&selector.metric) else {
            return Some(format!("no program has a metric {}", selector.metric));
        };
        let mut matchers = selector.matchers.iter();
        let wrong = matchers.find(|(label, value)| !is_known(of_programs, label, value));
        wrong.map(|(label, value)| format!("{} has no {label} {value}", selector.metric))
    }
}

fn is_of_every_target(label: &str) -> bool {
    ["job", "instance"].contains(&label)
}

fn is_known(of_programs: &BTreeMap<String, Labels>, label: &str, value: &str) -> bool {
    if label == "job" {
        return of_programs.contains_key(value);
    }
    let mut values = of_programs.values().filter_map(|labels| labels.get(label));
    values.any(|known| match &known[..] {
        // A value that nobody knows beforehand may be misspelled without a sign. So rules name none, except classes of
        // HTTP statuses.
        [] => label == "status" && ["2..", "4..", "5.."].contains(&value),
        known => known.iter().any(|known| known == value),
    })
}

/// `` `a`; `b`: `x`, `y` ``
fn read_labels(cell: &str) -> Labels {
    let labels = cell.split("; ").filter(|label| !label.trim().is_empty());
    labels
        .map(|label| {
            let (name, values) = label.split_once(": ").unwrap_or((label, ""));
            let bare = |text: &str| text.trim().trim_matches('`').to_owned();
            let values = values.split(", ").filter(|value| !value.is_empty());
            (bare(name), values.map(bare).collect())
        })
        .collect()
}
