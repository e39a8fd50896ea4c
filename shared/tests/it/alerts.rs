//! The alerts of deploy/prometheus name metrics that exist, have a section in docs/ALERTS.md, and are tested.
//!
//! `make check-alerts` runs Prometheus' own checks. They do not know which metrics the programs have: a rule about a
//! metric that nobody writes is valid, and silent for ever.

mod dashboards;
mod known;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use known::Metrics;
use shared::test_support::promql::{self, Selector};

const RULES: &str = include_str!("../../../deploy/prometheus/rules/returns.yml");
const ALERTMANAGER: &str = include_str!("../../../deploy/alertmanager/alertmanager.yml");
const SECTIONS: &str = include_str!("../../../docs/ALERTS.md");
const OPERATIONS: &str = include_str!("../../../docs/OPERATIONS.md");

/// An evaluation may come 15 s later than in the tests of promtool, and the promise is 90 s.
const MOST_SECONDS: u32 = 75;

#[derive(Debug)]
struct Rule {
    name: String,
    is_alert: bool,
    /// Its lines, without comments.
    text: String,
}

impl Rule {
    fn expression(&self) -> String {
        let (_, rest) = self.text.split_once("expr:").expect("an expression");
        let ends = [
            "\n        for:",
            "\n        labels:",
            "\n        annotations:",
        ];
        let end = ends.iter().filter_map(|end| rest.find(end)).min();
        rest[..end.unwrap_or(rest.len())].to_owned()
    }

    /// The value of a line of its own, without quotes.
    fn value(&self, key: &str) -> Option<&str> {
        let mut lines = self.text.lines().map(str::trim);
        let value = lines.find_map(|line| line.strip_prefix(key))?;
        Some(value.trim().trim_matches('"'))
    }

    fn severity(&self) -> Option<&str> {
        let labels = self.value("labels:")?;
        let (_, severity) = labels.split_once("severity: ")?;
        severity.split([',', '}']).next()
    }
}

/// Alerts and recorded series.
fn rules() -> Vec<Rule> {
    let lines = RULES.lines().filter(|line| !line.trim().starts_with('#'));
    let mut rules: Vec<Rule> = Vec::new();
    for line in lines {
        let begun = line.trim().strip_prefix("- ");
        let alert = begun.and_then(|begun| begun.strip_prefix("alert: "));
        let record = begun.and_then(|begun| begun.strip_prefix("record: "));
        if let Some(name) = alert.or(record) {
            rules.push(Rule {
                name: name.to_owned(),
                is_alert: alert.is_some(),
                text: String::new(),
            });
        } else if let Some(rule) = rules.last_mut().filter(|_| begun.is_none()) {
            rule.text.push('\n');
            rule.text.push_str(line);
        }
    }
    rules
}

fn alerts() -> Vec<Rule> {
    let alerts: Vec<Rule> = rules().into_iter().filter(|rule| rule.is_alert).collect();
    assert!(alerts.len() > 30, "{} alerts were found", alerts.len());
    alerts
}

/// As GitHub makes it of a heading without special characters.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        letter if letter.is_alphanumeric() || letter == '-' || letter == '_' => Some(letter),
        _ => None,
    });
    kept.collect::<String>().to_lowercase()
}

/// The series that the rules record.
fn recorded() -> BTreeSet<String> {
    let recorded = rules().into_iter().filter(|rule| !rule.is_alert);
    recorded.map(|rule| rule.name).collect()
}

/// What an expression names and no program has.
fn unknown_to_the_programs(expression: &str) -> Vec<String> {
    let (metrics, recorded) = (Metrics::read(), recorded());
    let (selectors, grouped) = promql::read(expression);
    assert!(!selectors.is_empty(), "no metric: {expression}");
    // Prometheus writes ALERTS itself.
    let measured = |one: &&Selector| one.metric != "ALERTS" && !recorded.contains(&one.metric);
    let measured: Vec<&Selector> = selectors.iter().filter(measured).collect();
    let has = |label: &String| {
        let mut measured = measured.iter();
        measured.any(|one| metrics.has_label(&one.metric, label))
    };
    let problems = measured.iter().filter_map(|one| metrics.problem(one));
    let missing = grouped.iter().filter(|label| !has(label));
    let missing = missing.map(|label| format!("nothing has label {label}"));
    problems.chain(missing).collect()
}

#[test]
fn every_metric_and_label_of_a_rule_exists() {
    let mut wrong = Vec::new();
    for rule in rules() {
        let problems = unknown_to_the_programs(&rule.expression());
        wrong.extend(problems.iter().map(|it| format!("{}: {it}", rule.name)));
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn every_alert_has_a_severity_a_summary_and_a_runbook() {
    for alert in alerts() {
        let name = &alert.name;
        let severity = alert.severity().unwrap_or_default();
        assert!(["page", "ticket"].contains(&severity), "{name}: {severity}");
        assert!(
            alert.value("summary:").is_some_and(|it| it.len() > 20),
            "{name}"
        );
        let section = format!("docs/ALERTS.md#{}", name.to_lowercase());
        assert_eq!(alert.value("runbook:"), Some(section.as_str()), "{name}");
    }
}

#[test]
fn every_alert_has_a_section_with_its_severity_and_the_other_way_round() {
    let alerts = alerts();
    let in_rules: Vec<String> = alerts
        .iter()
        .map(|alert| format!("{} {}", alert.name, alert.severity().unwrap_or_default()))
        .collect();
    let sections = SECTIONS.split("\n## ").skip(1);
    let documented: Vec<String> = sections
        .map(|section| {
            let (name, text) = section.split_once("\n\n").expect("a heading and a text");
            let severity = text
                .strip_prefix("**")
                .and_then(|text| text.split_once(".**"));
            format!("{name} {}", severity.map_or("", |(severity, _)| severity))
        })
        .collect();
    assert_eq!(documented, in_rules, "in the order of the rules");
}

#[test]
fn every_link_of_the_sections_leads_to_a_heading() {
    let headings = |page: &str| -> BTreeSet<String> {
        let headings = page.lines().filter(|line| line.starts_with('#'));
        headings
            .map(|line| anchor(line.trim_start_matches('#').trim()))
            .collect()
    };
    let (here, there) = (headings(SECTIONS), headings(OPERATIONS));
    let links = SECTIONS.split("](").skip(1);
    let targets = links.map(|link| link.split(')').next().unwrap_or_default());
    let lost: Vec<&str> = targets
        .filter(|target| match target.split_once('#') {
            Some(("", anchor)) => !here.contains(anchor),
            Some(("OPERATIONS.md", anchor)) => !there.contains(anchor),
            _ => !repository().join("docs").join(target).exists(),
        })
        .collect();
    assert_eq!(lost, [""; 0]);
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Each test of promtool: what fires at which second, in the order of time.
fn promtool_tests() -> Vec<Vec<(u32, BTreeSet<String>)>> {
    let folder = repository().join("deploy/prometheus/tests");
    let mut tests = Vec::new();
    for file in std::fs::read_dir(folder).expect("the tests of the rules") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("a text");
        tests.extend(text.split("  - interval:").skip(1).map(expectations));
    }
    tests
}

fn expectations(test: &str) -> Vec<(u32, BTreeSet<String>)> {
    let lines = test.lines().filter_map(|line| {
        let (_, rest) = line.split_once("eval_time: ")?;
        let (time, samples) = rest.split_once(',')?;
        let firing = samples.split("{alertname=\"").skip(1);
        let firing = firing.filter_map(|name| name.split('"').next());
        Some((seconds(time), firing.map(str::to_owned).collect()))
    });
    lines.collect()
}

/// `1h2m15s` as Prometheus writes it.
fn seconds(duration: &str) -> u32 {
    let (mut total, mut number) = (0, 0);
    for letter in duration.chars() {
        match letter.to_digit(10) {
            Some(digit) => number = number * 10 + digit,
            None => {
                let unit = BTreeMap::from([('h', 3600), ('m', 60), ('s', 1)]);
                total += number * unit.get(&letter).expect("a unit");
                number = 0;
            }
        }
    }
    total
}

#[test]
fn every_alert_is_tested_to_fire_in_time_and_to_end() {
    let tests = promtool_tests();
    let shown: Vec<String> = alerts()
        .into_iter()
        .map(|alert| alert.name)
        .filter(|name| {
            !tests.iter().any(|test| {
                let [(cause, before), .., (_, after)] = &test[..] else {
                    return false;
                };
                let in_time = |(at, firing): &(u32, BTreeSet<String>)| {
                    at - cause <= MOST_SECONDS && firing.contains(name)
                };
                before.is_empty() && test.iter().any(in_time) && !after.contains(name)
            })
        })
        .collect();
    assert_eq!(shown, [""; 0], "no test in which it fires in time and ends");
}

#[test]
fn alertmanager_silences_only_alerts_that_exist() {
    let names: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    let matchers = ALERTMANAGER.split("alertname=").skip(1);
    let named = matchers.flat_map(|matcher| {
        let quoted = matcher.trim_start_matches('~').trim_start_matches('"');
        quoted.split('"').next().unwrap_or_default().split('|')
    });
    let named: Vec<&str> = named.collect();
    assert!(named.len() > 10, "{named:?}");
    let unknown: Vec<&&str> = named
        .iter()
        .filter(|name| !names.contains(**name))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
