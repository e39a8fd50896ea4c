//! The overview in words: one line for each queue, and for each program that works on it.

use shared::domain::refund::AttemptState;

use super::{AlertState, Outbox, Overview, Part, Waiting, Work};
use crate::store::queues::StateCount;
use crate::store::shards::{ShardCounts, ShardHead};
use crate::text::{counted, printable, span};

/// A line with a short name. `status` and `top` break a long text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) label: &'static str,
    pub(crate) text: String,
    /// The values are old or unknown.
    pub(crate) is_troubled: bool,
}

impl Line {
    fn new(label: &'static str, text: impl Into<String>) -> Self {
        Self {
            label,
            text: text.into(),
            is_troubled: false,
        }
    }
}

impl Overview {
    /// How much waits in each queue, and for how long.
    pub(crate) fn queues(&self) -> Vec<Line> {
        let mut lines = of_part("outbox", &self.outbox, |outbox| {
            let counts = self.outbox_counts.value.as_deref();
            vec![Line::new("outbox", outbox_text(outbox, counts))]
        });
        // Otherwise the part above has the same trouble.
        if self.outbox.trouble.is_none()
            && let Some(trouble) = self.outbox_counts.trouble_text()
        {
            lines.push(troubled("rows", trouble));
        }
        lines.extend(of_part("group", &self.consumers, |consumers| {
            let text = consumers.group.as_ref().map_or_else(
                || "the topic of new returns does not exist".to_owned(),
                |group| format!("{}: {}", printable(&group.group), group.summary()),
            );
            vec![Line::new("group", text)]
        }));
        lines.extend(of_part("returns", &self.work, work_lines));
        lines
    }

    /// The programs that work on the queues.
    pub(crate) fn workers(&self) -> Vec<Line> {
        let mut lines = self
            .outbox
            .value
            .as_ref()
            .map_or_else(Vec::new, relay_lines);
        if let Some(consumers) = &self.consumers.value
            && let Some(group) = &consumers.group
        {
            lines.extend(group.members.iter().map(|member| {
                let partitions = ranges(member.partitions.iter().map(|one| i64::from(*one)));
                let (name, host) = (printable(&member.client_id), printable(&member.host));
                let text = format!("{name} at {host}: partitions {partitions}");
                Line::new("consumer", text)
            }));
        }
        lines.extend(self.programs.iter().map(|program| {
            let address = printable(&program.address);
            match (&program.metrics.value, program.metrics.trouble_text()) {
                (Some(scrape), None) => Line::new(
                    "program",
                    format!("{} at {address} answers", scrape.program),
                ),
                (_, trouble) => troubled(
                    "program",
                    format!("{address}: {}", trouble.unwrap_or_default()),
                ),
            }
        }));
        lines
    }

    /// The state of the alerts in one line.
    pub(crate) fn alert_summary(&self) -> Line {
        let Some(alerts) = &self.alerts else {
            return Line::new(
                "alerts",
                "not known: set --prometheus-url (PROMETHEUS_URL) to the Prometheus that has the rules",
            );
        };
        let lines = of_part("alerts", alerts, |alerts| {
            let named = |state| {
                let those = alerts.iter().filter(|alert| alert.state == state);
                let names: Vec<String> = those.map(|alert| printable(&alert.name)).collect();
                names
            };
            let (firing, pending) = (named(AlertState::Firing), named(AlertState::Pending));
            let rules = i64::try_from(alerts.len()).unwrap_or(i64::MAX);
            let mut text = match firing.len() {
                0 => format!("none of {} fires", counted(rules, "rule")),
                _ => format!("FIRING {}", firing.join(", ")),
            };
            if !pending.is_empty() {
                text.push_str(&format!("; pending {}", pending.join(", ")));
            }
            vec![Line::new("alerts", text)]
        });
        let texts: Vec<String> = lines.iter().map(|line| line.text.clone()).collect();
        Line {
            label: "alerts",
            text: texts.join("; "),
            is_troubled: alerts.trouble.is_some(),
        }
    }

    pub(crate) fn verdict(&self) -> &'static str {
        match self.exit_code {
            0 => "Nothing stands still, and nothing waits for a person.",
            1 => "Something stands still: see STUCK.",
            2 => "Some values are unknown or old, so the result is unknown.",
            _ => "Nothing stands still. Something waits for a person: see wait.",
        }
    }
}

impl Waiting {
    /// The mark, the kind and the count.
    pub(crate) fn text(&self) -> String {
        let mark = self.urgency.mark();
        let mut text = format!("{mark:6}{}: {}", self.kind.title(), self.count);
        if !self.found.is_empty() {
            text.push_str(&format!(" ({})", self.found));
        }
        if let Some(oldest) = self.oldest_secs {
            text.push_str(&format!(", the oldest for {}", span(oldest)));
        }
        text
    }

    /// What to type next.
    pub(crate) fn next(&self) -> String {
        format!("-> {}", self.command)
    }
}

/// The lines of a value, and one for its trouble.
fn of_part<T>(
    label: &'static str,
    part: &Part<T>,
    lines: impl FnOnce(&T) -> Vec<Line>,
) -> Vec<Line> {
    let mut lines = part.value.as_ref().map_or_else(Vec::new, lines);
    lines
        .iter_mut()
        .for_each(|line| line.is_troubled = part.trouble.is_some());
    lines.extend(part.trouble_text().map(|text| troubled(label, text)));
    lines
}

fn troubled(label: &'static str, text: String) -> Line {
    Line {
        label,
        text: printable(&text),
        is_troubled: true,
    }
}

fn outbox_text(outbox: &Outbox, counts: Option<&[ShardCounts]>) -> String {
    let rows = counts.map(|counts| counts.iter().map(|one| one.waiting_rows).sum::<i64>());
    let ages = outbox.shards.iter().filter_map(|head| head.oldest_age_secs);
    let oldest = ages
        .reduce(f64::max)
        .map_or_else(String::new, |age| format!(", oldest {}", span(age)));
    let waiting = rows.map_or_else(
        || "rows not counted".to_owned(),
        |rows| format!("{} waiting", counted(rows, "row")),
    );
    let mut text = format!("{waiting}{oldest}; {} parked", outbox.parked_events);
    if let Some(measured) = &outbox.measured {
        let size = bytes(measured.payload_bytes);
        let size = match rows {
            Some(_) => size,
            None => format!("{}, {size}", counted(measured.rows, "row")),
        };
        text.push_str(&format!("; {size} {} ago", span(measured.measured_secs)));
    }
    text
}

fn work_lines(work: &Work) -> Vec<Line> {
    let letters = work.findings.dead_letters;
    let oldest = work.oldest_dead_letter_secs;
    let oldest = oldest.map(|secs| format!(", the oldest for {}", span(secs)));
    vec![
        Line::new(
            "returns",
            states(&work.returns, |_, secs| format!(" ({})", span(secs))),
        ),
        Line::new(
            "refunds",
            states(&work.refunds, |name, secs| {
                // No program checks a parked one.
                if secs > 0.0 && name != AttemptState::Parked.as_str() {
                    format!(" (due for {})", span(secs))
                } else {
                    String::new()
                }
            }),
        ),
        Line::new(
            "letters",
            format!("{} dead{}", letters, oldest.unwrap_or_default()),
        ),
    ]
}

/// `initiated 4 (2 s), approved 0`
fn states(states: &[StateCount], oldest: impl Fn(&str, f64) -> String) -> String {
    let each = states.iter().map(|state| {
        let oldest = state.oldest_secs.map(|secs| oldest(&state.name, secs));
        let oldest = oldest.unwrap_or_default();
        format!("{} {}{oldest}", state.name, state.count)
    });
    each.collect::<Vec<String>>().join(", ")
}

/// Relays with a heartbeat, and owners of shards that have none.
fn relay_lines(outbox: &Outbox) -> Vec<Line> {
    let mut names: Vec<&str> = outbox
        .relays
        .iter()
        .map(|relay| relay.id.as_str())
        .collect();
    names.extend(outbox.shards.iter().filter_map(ShardHead::living_owner));
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return vec![Line::new("relays", "none is at work")];
    }
    let line = |name: &str| {
        let owned = outbox.shards.iter();
        let owned: Vec<&ShardHead> = owned
            .filter(|head| head.living_owner() == Some(name))
            .collect();
        let shards = ranges(owned.iter().map(|head| i64::from(head.shard.0)));
        let lease = owned.iter().filter_map(|head| head.lease_left_secs);
        let lease = lease.reduce(f64::min);
        let lease = lease.map(|left| format!(", lease {} left", span(left)));
        let seen = outbox.relays.iter().find(|relay| relay.id == name);
        let seen = seen.map(|relay| format!(", seen {} ago", span(relay.seen_secs)));
        let (lease, seen) = (lease.unwrap_or_default(), seen.unwrap_or_default());
        Line::new(
            "relay",
            format!("{}: shards {shards}{lease}{seen}", printable(name)),
        )
    };
    names.into_iter().map(line).collect()
}

/// `0-3, 7`; a dash for none. The numbers ascend.
fn ranges(numbers: impl Iterator<Item = i64>) -> String {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let each = runs.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    });
    match each.collect::<Vec<String>>().join(", ") {
        none if none.is_empty() => "-".to_owned(),
        text => text,
    }
}

fn bytes(count: i64) -> String {
    match count {
        b if b < 10_240 => format!("{b} bytes"),
        b if b < 10 * 1_048_576 => format!("{} KiB", b / 1_024),
        b => format!("{} MiB", b / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_are_a_range() {
        for (numbers, text) in [
            (&[][..], "-"),
            (&[4], "4"),
            (&[0, 1, 2, 5, 7, 8], "0-2, 5, 7-8"),
        ] {
            assert_eq!(ranges(numbers.iter().copied()), text);
        }
    }

    #[test]
    fn sizes_are_in_a_sensible_unit() {
        let shown = [0, 10_239, 10_240, 20_000_000].map(bytes);
        assert_eq!(shown, ["0 bytes", "10239 bytes", "10 KiB", "19 MiB"]);
    }
}
