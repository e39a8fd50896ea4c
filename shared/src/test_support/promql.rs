//! As much of PromQL as the rules and the dashboards use: which series an expression selects, and by which labels it groups.

use std::collections::BTreeSet;

/// A metric and its matchers, as in `up{job="returns-api"}`.
#[derive(Debug)]
pub struct Selector {
    pub metric: String,
    /// Label and value; several values of a regular expression are several entries.
    pub matchers: Vec<(String, String)>,
    /// As it is written, without a range.
    pub text: String,
}

/// What stands where a metric could stand.
const WORDS: [&str; 17] = [
    "absent",
    "and",
    "by",
    "count",
    "histogram_quantile",
    "increase",
    "max",
    "min",
    "on",
    "or",
    "rate",
    "sum",
    "time",
    "timestamp",
    "topk",
    "unless",
    "vector",
];

/// The selectors of an expression, and the labels that it groups by.
///
/// # Panics
/// The expression uses a part of PromQL that is not known here.
pub fn read(expression: &str) -> (Vec<Selector>, BTreeSet<String>) {
    let (mut selectors, mut grouped) = (Vec::new(), BTreeSet::new());
    let mut rest = without_brackets(expression, '[', ']');
    while let Some(start) = rest.find(|letter: char| is_of_name(letter)) {
        let tail = rest.split_off(start);
        let end = tail
            .find(|letter| !is_of_name(letter))
            .unwrap_or(tail.len());
        let (name, after) = tail.split_at(end);
        let after = after.trim_start();
        let mut left = after;
        if name.starts_with(|letter: char| letter.is_ascii_digit()) {
            // A number.
        } else if ["by", "on"].contains(&name) {
            let (labels, end) = inner(after, '(', ')').expect("a list of labels");
            grouped.extend(labels.split(',').map(|label| label.trim().to_owned()));
            left = end;
        } else if !WORDS.contains(&name) {
            let (matchers, end) = inner(after, '{', '}').unwrap_or(("", after));
            selectors.push(Selector {
                metric: name.to_owned(),
                matchers: read_matchers(matchers),
                text: format!("{name}{{{matchers}}}"),
            });
            left = end;
        }
        rest = left.to_owned();
    }
    (selectors, grouped)
}

fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

/// The text between the brackets that `text` begins with, and the text after them.
fn inner(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    text.strip_prefix(open)?.split_once(close)
}

fn without_brackets(text: &str, open: char, close: char) -> String {
    let mut depth = 0_u32;
    let kept = text.chars().filter(|letter| {
        depth += u32::from(*letter == open);
        let outside = depth == 0;
        depth -= u32::from(*letter == close);
        outside
    });
    kept.collect()
}

/// No value of the rules contains a comma.
fn read_matchers(text: &str) -> Vec<(String, String)> {
    let matchers = text.split(',').filter(|matcher| !matcher.trim().is_empty());
    matchers
        .flat_map(|matcher| {
            let (label, values) = matcher.split_once(['=', '!']).expect("label=value");
            let label = label.trim().to_owned();
            let values = values.trim_start_matches(['=', '~']).trim();
            let values = values.trim_matches('"');
            let split = values
                .split('|')
                .map(move |value| (label.clone(), value.to_owned()));
            split.collect::<Vec<_>>()
        })
        .collect()
}
