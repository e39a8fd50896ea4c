//! The panes of the view: a title and lines, broken at spaces for the width that there is.

use std::time::Instant;

use crate::layout::{shorten, width as width_of, wrap_at};
use crate::overview::{Alert, AlertState, Line, Overview, Rates};
use crate::store::shards::{ShardCounts, ShardHead};
use crate::text::{or_dash, printable, span};
use crate::waiting::Urgency;

pub(super) const PANES: usize = 5;
/// In a column of the shards' grid, with the gap after it.
const CELL: usize = 20;
/// Of a relay's name beside the grid; the pane of the relays has the whole name.
const NAME: usize = 12;
/// Beside a title stands how many lines are above and below.
const BESIDE_TITLE: usize = 28;
/// Columns of the labels.
const LABEL: usize = 10;
/// From here on a shard has a line of its own.
const WIDE: usize = 90;

/// How a line looks; each also says it in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Notice,
    Bad,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Pane {
    pub(super) title: String,
    pub(super) lines: Vec<(String, Tone)>,
    /// Without its title.
    pub(super) at_least: usize,
}

impl Pane {
    fn new(title: impl Into<String>, at_least: usize) -> Self {
        Self {
            title: title.into(),
            lines: Vec::new(),
            at_least,
        }
    }

    fn push(&mut self, text: &str, hanging: usize, width: usize, tone: Tone) {
        let wrapped = wrap_at(text, hanging, width);
        let lines = wrapped.lines().map(|line| (line.to_owned(), tone));
        self.lines.extend(lines);
    }

    fn label(&mut self, line: &Line, width: usize) {
        let tone = if line.is_troubled {
            Tone::Bad
        } else {
            Tone::Plain
        };
        let text = format!("{:LABEL$}{}", line.label, line.text);
        self.push(&text, LABEL, width, tone);
    }
}

/// The panes in the order of the screen.
pub(super) fn panes(overview: &Overview, width: usize) -> [Pane; PANES] {
    [
        queues(overview, width),
        shards(overview, width),
        waits(overview, width),
        alerts(overview, width),
        workers(overview, width),
    ]
}

fn queues(overview: &Overview, width: usize) -> Pane {
    let mut pane = Pane::new("Queues", 8);
    let has_programs = !overview.programs.is_empty();
    let rates = if has_programs {
        rates(&overview.rates)
    } else {
        "not known: set --ops (OPS_ADDRESSES) to the programs' ports".to_owned()
    };
    pane.push(
        &format!("{:LABEL$}{rates}", "per sec"),
        LABEL,
        width,
        Tone::Plain,
    );
    for line in overview.queues() {
        pane.label(&line, width);
    }
    pane
}

fn rates(rates: &Rates) -> String {
    let one = |name: &str, rate: Option<f64>| {
        format!("{name} {}", or_dash(rate.map(|rate| format!("{rate:.1}"))))
    };
    [
        one("filed", rates.filed_per_sec),
        one("published", rates.published_per_sec),
        one("claimed", rates.claimed_per_sec),
        one("refunded", rates.refunded_per_sec),
    ]
    .join("   ")
}

/// Each shard with its rows, the age of the oldest, and its relay: the number in brackets stands for it.
fn shards(overview: &Overview, width: usize) -> Pane {
    let mut pane = Pane::new("Shards: rows, oldest, relay", 4);
    let Some(outbox) = &overview.outbox.value else {
        pane.title = "Shards: UNKNOWN".to_owned();
        return pane;
    };
    if overview.outbox.trouble.is_some() {
        pane.title.push_str(": OLD");
    }
    let counts = overview.outbox_counts.value.as_deref();
    let count = |at: usize| counts.and_then(|counts| counts.get(at)).copied();
    let heads = outbox.shards.iter().enumerate();
    if width >= WIDE {
        let lines = heads.map(|(at, head)| wide_shard(head, count(at), width));
        pane.lines.extend(lines);
        return pane;
    }
    let mut owners: Vec<&str> = outbox
        .shards
        .iter()
        .filter_map(ShardHead::living_owner)
        .collect();
    owners.sort_unstable();
    owners.dedup();
    let cells: Vec<String> = heads
        .map(|(at, head)| cell(head, count(at), &owners))
        .collect();
    let columns = (width / CELL).max(1);
    for row in cells.chunks(columns) {
        let line: String = row.iter().map(|cell| format!("{cell:CELL$}")).collect();
        pane.lines.push((line.trim_end().to_owned(), Tone::Plain));
    }
    let names = owners.iter().enumerate();
    let names = names.map(|(at, name)| {
        let name = shorten(&printable(name), NAME);
        format!("[{}] {name}", at + 1)
    });
    let names = names.collect::<Vec<String>>().join("  ");
    if width_of(&pane.title) + width_of(&names) + BESIDE_TITLE <= width {
        pane.title = format!("{}  {names}", pane.title);
    } else {
        pane.push(&names, 0, width, Tone::Plain);
    }
    pane
}

fn cell(head: &ShardHead, counts: Option<ShardCounts>, owners: &[&str]) -> String {
    let rows = or_dash(counts.map(|counts| counts.waiting_rows));
    let age = or_dash(head.oldest_age_secs.map(span));
    let owner = owners
        .iter()
        .position(|name| head.living_owner() == Some(*name));
    let owner = match owner {
        _ if head.is_paused() => "paused".to_owned(),
        Some(at) => format!("[{}]", at + 1),
        None => "free".to_owned(),
    };
    shorten(
        &format!("{:2} {rows} {age} {owner}", head.shard.0),
        CELL - 1,
    )
}

fn wide_shard(head: &ShardHead, counts: Option<ShardCounts>, width: usize) -> (String, Tone) {
    let rows = or_dash(counts.map(|counts| counts.waiting_rows));
    let parked = counts.map_or(0, |counts| counts.parked_rows);
    let owner = match head.living_owner() {
        _ if head.is_paused() => "PAUSED".to_owned(),
        Some(owner) => printable(owner),
        None => "free".to_owned(),
    };
    let parked = match parked {
        0 => String::new(),
        parked => format!("  {parked} parked"),
    };
    let tone = if head.is_unattended() || head.is_old() {
        Tone::Bad
    } else {
        Tone::Plain
    };
    let age = or_dash(head.oldest_age_secs.map(span));
    let text = format!("{:3} {rows:>9}  {age:>7}  {owner}{parked}", head.shard.0);
    (shorten(&text, width), tone)
}

fn waits(overview: &Overview, width: usize) -> Pane {
    let mut pane = Pane::new(format!("Waits: {}", overview.waiting.len()), 4);
    for one in &overview.waiting {
        let tone = match one.urgency {
            Urgency::Stuck => Tone::Bad,
            Urgency::Person => Tone::Notice,
            Urgency::Notice => Tone::Plain,
        };
        let (text, next) = (one.text(), one.next());
        let both = format!("{text} {next}");
        if width_of(&both) <= width {
            pane.push(&both, 8, width, tone);
        } else {
            pane.push(&text, 8, width, tone);
            pane.push(&format!("      {next}"), LABEL, width, tone);
        }
    }
    if overview.waiting.is_empty() {
        pane.push(overview.verdict(), 2, width, Tone::Plain);
    }
    pane
}

fn alerts(overview: &Overview, width: usize) -> Pane {
    let mut pane = Pane::new("Alerts and errors", 3);
    pane.label(&overview.alert_summary(), width);
    for seen in &overview.errors {
        let ago = span(
            Instant::now()
                .saturating_duration_since(seen.seen_at)
                .as_secs_f64(),
        );
        let (program, address) = (seen.program, printable(&seen.address));
        let text = format!(
            "error     {ago} ago: {program} at {address}: {} +{}",
            printable(&seen.series),
            seen.count
        );
        pane.push(&text, LABEL, width, Tone::Notice);
    }
    if overview.errors.is_empty() && !overview.programs.is_empty() {
        pane.push(
            "errors    none counted since this view began",
            LABEL,
            width,
            Tone::Plain,
        );
    }
    let alerts = overview
        .alerts
        .as_ref()
        .and_then(|part| part.value.as_deref());
    for alert in alerts.unwrap_or_default() {
        let (text, tone) = alert_line(alert);
        pane.push(&text, LABEL, width, tone);
    }
    pane
}

fn alert_line(alert: &Alert) -> (String, Tone) {
    let (state, tone) = match alert.state {
        AlertState::Firing => ("FIRING", Tone::Bad),
        AlertState::Pending => ("pending", Tone::Notice),
        AlertState::Unknown => ("unknown", Tone::Notice),
        AlertState::Inactive => ("inactive", Tone::Plain),
    };
    let (name, severity) = (printable(&alert.name), printable(&alert.severity));
    (format!("{state:LABEL$}{name} {severity}"), tone)
}

fn workers(overview: &Overview, width: usize) -> Pane {
    let mut pane = Pane::new("Relays, consumers, programs", 0);
    for line in overview.workers() {
        pane.label(&line, width);
    }
    pane
}
