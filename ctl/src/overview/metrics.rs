//! What a program's `/metrics` says, in the Prometheus text format: what it has done since its start, and its errors.

use std::collections::BTreeMap;

use serde::Serialize;

/// One line of `/metrics`.
#[derive(Debug, PartialEq)]
struct Sample<'t> {
    name: &'t str,
    labels: Vec<(&'t str, String)>,
    value: f64,
}

/// What we take from a program's metrics. The names are those of `--json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Scrape {
    pub(crate) program: &'static str,
    pub(crate) stages: Stages,
    pub(crate) troubled_topics: Vec<TroubledTopic>,
    /// Counters of errors, by series.
    pub(crate) errors: BTreeMap<String, f64>,
}

/// How many each stage has done since the program's start; `None` if it is not the program's stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Stages {
    pub(crate) filed: Option<f64>,
    pub(crate) published: Option<f64>,
    pub(crate) claimed: Option<f64>,
    pub(crate) refunded: Option<f64>,
}

/// A topic whose rows are held back by a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TroubledTopic {
    pub(crate) topic: String,
    pub(crate) reason: String,
}

/// A metric that only this program has.
const PROGRAMS: [(&str, &str); 3] = [
    ("filing_outcomes_total", "returns-api"),
    ("outbox_published_rows_total", "outbox-relay"),
    ("refund_consumer_messages_total", "refund-consumer"),
];

/// Outcomes of a filing that are the system's fault.
const FAILED_FILINGS: [&str; 5] = [
    "busy",
    "backlog-full",
    "unavailable",
    "outcome-unknown",
    "internal",
];

impl Scrape {
    /// `None` if it is the text of no program of ours.
    pub(super) fn of(text: &str) -> Option<Self> {
        let samples: Vec<Sample<'_>> = text.lines().filter_map(Sample::parse).collect();
        let has = |name: &str| samples.iter().any(|sample| sample.name == name);
        let (_, program) = PROGRAMS.into_iter().find(|(name, _)| has(name))?;
        let sum = |name: &str, label: &str, values: &[&str]| {
            let found = samples.iter().filter(|sample| sample.name == name);
            let found = found.filter(|sample| {
                values.is_empty()
                    || sample
                        .label(label)
                        .is_some_and(|value| values.contains(&value))
            });
            found.map(|sample| sample.value).reduce(|a, b| a + b)
        };
        Some(Self {
            program,
            stages: Stages {
                filed: sum("filing_outcomes_total", "outcome", &["filed"]),
                published: sum("outbox_published_rows_total", "", &[]),
                claimed: sum("refund_consumer_messages_total", "result", &["claimed"]),
                refunded: sum(
                    "refund_consumer_settlements_total",
                    "result",
                    &["refunded", "refunded_beside_shop"],
                ),
            },
            troubled_topics: samples.iter().filter_map(Sample::troubled_topic).collect(),
            errors: samples
                .iter()
                .filter(|sample| sample.counts_errors())
                .map(|sample| (sample.series(), sample.value))
                .collect(),
        })
    }
}

impl<'t> Sample<'t> {
    /// `None` for a comment, and for a line that is not of the format.
    fn parse(line: &'t str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let name_end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(name_end);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            loop {
                rest = rest.trim_start_matches([',', ' ']);
                if let Some(after) = rest.strip_prefix('}') {
                    rest = after;
                    break;
                }
                let (label, after) = rest.split_once("=\"")?;
                let (value, after) = quoted(after)?;
                labels.push((label, value));
                rest = after;
            }
        }
        // A time may follow the value.
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            name,
            labels,
            value,
        })
    }

    fn label(&self, name: &str) -> Option<&str> {
        let mut labels = self.labels.iter();
        labels
            .find(|(label, _)| *label == name)
            .map(|(_, value)| value.as_str())
    }

    fn series(&self) -> String {
        let values: Vec<&str> = self
            .labels
            .iter()
            .map(|(_, value)| value.as_str())
            .collect();
        if values.is_empty() {
            self.name.to_owned()
        } else {
            format!("{} {}", self.name, values.join(" "))
        }
    }

    fn counts_errors(&self) -> bool {
        let by_name = ["_errors_total", "_failures_total", "_leases_lost_total"];
        by_name.iter().any(|end| self.name.ends_with(end))
            || (self.name == "filing_outcomes_total"
                && self
                    .label("outcome")
                    .is_some_and(|outcome| FAILED_FILINGS.contains(&outcome)))
    }

    fn troubled_topic(&self) -> Option<TroubledTopic> {
        if self.name != "outbox_relay_troubled_topic" || self.value == 0.0 {
            return None;
        }
        Some(TroubledTopic {
            topic: self.label("topic")?.to_owned(),
            reason: self.label("reason")?.to_owned(),
        })
    }
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_name_labels_and_a_value() {
        let sample = Sample::parse(r#"a_total{b="x,\"}\n\\",c="größer"} 1.5e3 1700000000000"#);
        let sample = sample.expect("a sample");
        assert_eq!((sample.name, sample.value), ("a_total", 1_500.0));
        assert_eq!(sample.label("b"), Some("x,\"}\n\\"));
        assert_eq!(sample.label("c"), Some("größer"));
        assert_eq!(Sample::parse("a 2").map(|sample| sample.value), Some(2.0));
        for bad in ["# HELP a b", "", "a", "a{b=\"x} 1", "a{b} 1", "a x"] {
            assert_eq!(Sample::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_program_is_known_by_its_metrics() {
        let relay = "outbox_published_rows_total 7\noutbox_database_errors_total{work=\"read\",code=\"denied\"} 2\n\
                     outbox_relay_troubled_topic{topic=\"t\",reason=\"topic_missing\"} 1\n";
        let scrape = Scrape::of(relay).expect("a relay");
        assert_eq!(scrape.program, "outbox-relay");
        assert_eq!(scrape.stages.published, Some(7.0));
        assert_eq!(scrape.stages.filed, None);
        assert_eq!(scrape.troubled_topics[0].reason, "topic_missing");
        let error = "outbox_database_errors_total read denied";
        assert_eq!(scrape.errors.get(error), Some(&2.0));
        let api = "filing_outcomes_total{outcome=\"filed\"} 3\nfiling_outcomes_total{outcome=\"busy\"} 1\n";
        let scrape = Scrape::of(api).expect("an api");
        assert_eq!(
            (scrape.program, scrape.stages.filed),
            ("returns-api", Some(3.0))
        );
        assert_eq!(scrape.errors.len(), 1);
        assert_eq!(Scrape::of("go_threads 1\n"), None);
    }
}
