//! The tree as lines of text: when each span began after the root, how long it took, where it stands, who it was, and,
//! where there is space for it, a bar on the trace's own time.

use std::collections::HashMap;

use super::span::{End, Link, Span};
use super::tree::{Entry, entries};
use crate::layout::{shorten, width, wrap};
use crate::text::{printable, span as rounded};

/// Of a time, right-aligned.
const TIME: usize = 8;
const GAP: &str = "  ";
/// A longer name of a service is shortened.
const SERVICE: usize = 20;
/// The narrowest and the widest bar.
const BAR: std::ops::RangeInclusive<usize> = 12..=60;
/// The links of one span that are listed.
const LINKS: usize = 3;
/// How many of the longest waits are listed.
const LONGEST: usize = 3;

/// How a trace is shown.
pub(super) struct Page<'a> {
    /// Of the terminal.
    pub(super) width: usize,
    /// The heads of the last two columns.
    pub(super) heads: [&'a str; 2],
    /// What a link leads to.
    pub(super) names: &'a dyn Fn(&Link) -> String,
}

/// The first and the last moment of a trace, and the moment from which the others are counted.
#[derive(Debug, Clone, Copy)]
struct Extent {
    root: u64,
    from: u64,
    until: u64,
}

/// A line that is not yet cut to the columns.
#[derive(Debug, Default)]
struct Line {
    start: String,
    took: String,
    branch: String,
    label: String,
    service: String,
    /// From, until.
    bar: Option<(u64, u64)>,
    /// It may go on below the other columns.
    is_heading: bool,
}

/// How long the trace took, in all.
pub(super) fn took(spans: &[Span]) -> String {
    let extent = Extent::of(spans);
    time(i128::from(extent.until - extent.from))
}

pub(super) fn text(spans: &[Span], page: &Page<'_>) -> String {
    let extent = Extent::of(spans);
    let mut notes = Footnotes::default();
    let mut lines = vec![Line {
        start: "start".to_owned(),
        took: "took".to_owned(),
        label: page.heads[0].to_owned(),
        service: page.heads[1].to_owned(),
        ..Line::default()
    }];
    let entries = entries(spans);
    for entry in &entries {
        match entry {
            Entry::Heading(text) => lines.push(Line {
                label: text.clone(),
                is_heading: true,
                ..Line::default()
            }),
            Entry::Gap {
                branch,
                from,
                until,
            } => lines.push(extent.line(*from, Some(*until), branch, "(nothing recorded)")),
            Entry::Span {
                branch,
                below,
                span,
            } => lines.extend(extent.span(branch, below, span, &mut notes, page)),
        }
    }
    let mut shown = Columns::of(&lines, page.width).print(&lines, &extent);
    shown.extend(longest(&entries));
    shown.extend(notes.lines);
    shown.join("\n")
}

impl Extent {
    fn of(spans: &[Span]) -> Self {
        let began = |span: &Span| span.began;
        let from = spans.iter().map(began).min().unwrap_or_default();
        let roots = spans.iter().filter(|span| span.parent.is_none());
        Self {
            root: roots.map(began).min().unwrap_or(from),
            from,
            until: spans.iter().map(Span::until).max().unwrap_or_default(),
        }
    }

    fn line(&self, from: u64, until: Option<u64>, branch: &str, label: &str) -> Line {
        let took = until.map(|until| time(i128::from(until) - i128::from(from)));
        Line {
            start: time(i128::from(from) - i128::from(self.root)),
            took: took.unwrap_or_default(),
            branch: branch.to_owned(),
            label: label.to_owned(),
            bar: until.map(|until| (from, until)),
            ..Line::default()
        }
    }

    /// One line, or two if the notes need a line of their own.
    fn span(
        &self,
        branch: &str,
        below: &str,
        span: &Span,
        notes: &mut Footnotes,
        page: &Page<'_>,
    ) -> Vec<Line> {
        let name = printable(&span.name);
        let mut more: Vec<String> = Vec::new();
        more.extend(span.failed.then(|| "FAILED".to_owned()));
        more.extend(span.notes.iter().map(|note| printable(note)));
        more.extend(notes.marks(&span.links, page));
        let (until, goes_on) = match span.end {
            End::At { .. } => (Some(span.until()), false),
            End::None => (None, false),
            End::Open => (None, true),
        };
        let whole = format!("{name} {}", more.join(" "));
        let whole = whole.trim_end();
        let fits = width(branch) + width(whole) <= Columns::label(page.width);
        let mut first = self.line(span.began, until, branch, if fits { whole } else { &name });
        if goes_on {
            first.took = "…".to_owned();
            first.bar = Some((span.began, self.until));
        }
        first.service = printable(&span.service);
        let mut lines = vec![first];
        if !fits && !more.is_empty() {
            lines.push(Line {
                branch: below.to_owned(),
                label: format!("  {}", more.join(" ")),
                ..Line::default()
            });
        }
        lines
    }
}

/// The widths of the last three columns.
struct Columns {
    page: usize,
    label: usize,
    service: usize,
    bar: usize,
}

impl Columns {
    /// The space for a name, whatever the services are.
    fn label(page: usize) -> usize {
        page.saturating_sub(2 * (TIME + GAP.len()) + GAP.len() + "refund-consumer".len())
            .max(SERVICE)
    }

    fn of(lines: &[Line], page: usize) -> Self {
        let widest = |cell: fn(&Line) -> usize| lines.iter().map(cell).max().unwrap_or_default();
        let service = widest(|line| width(&line.service)).min(SERVICE);
        let space = page.saturating_sub(2 * (TIME + GAP.len()) + GAP.len() + service);
        // A heading takes the whole line.
        let spans = lines.iter().filter(|line| !line.is_heading);
        let names = spans.map(|line| width(&line.branch) + width(&line.label));
        let label = names.max().unwrap_or_default().min(space);
        let rest = space.saturating_sub(label + GAP.len());
        Self {
            page,
            label,
            service,
            bar: if BAR.contains(&rest) || rest > *BAR.end() {
                rest.min(*BAR.end())
            } else {
                0
            },
        }
    }

    fn print(&self, lines: &[Line], extent: &Extent) -> Vec<String> {
        lines.iter().map(|line| self.line(line, extent)).collect()
    }

    fn line(&self, line: &Line, extent: &Extent) -> String {
        let room = self.label.saturating_sub(width(&line.branch));
        let label = if line.is_heading {
            shorten(&line.label, self.page - 2 * (TIME + GAP.len()))
        } else {
            shorten(&line.label, room)
        };
        let text = format!(
            "{:>TIME$}{GAP}{:>TIME$}{GAP}{:label$}{GAP}{:service$}{GAP}{}",
            line.start,
            line.took,
            format!("{}{label}", line.branch),
            shorten(&line.service, self.service),
            self.bar(line, extent),
            label = self.label,
            service = self.service,
        );
        text.trim_end().to_owned()
    }

    /// At least one column, and never beyond the end.
    fn bar(&self, line: &Line, extent: &Extent) -> String {
        let Some((from, until)) = line.bar.filter(|_| self.bar > 0) else {
            return String::new();
        };
        let whole = u128::from((extent.until - extent.from).max(1));
        let columns = self.bar;
        let place = |at: u64| {
            let place = u128::from(at.saturating_sub(extent.from)) * columns as u128 / whole;
            usize::try_from(place).unwrap_or(columns).min(columns)
        };
        let from = place(from).min(columns - 1);
        let length = place(until).saturating_sub(from).max(1);
        format!("{}{}", " ".repeat(from), "━".repeat(length))
    }
}

/// Links to other traces, below the tree: an id takes half a line.
#[derive(Debug, Default)]
struct Footnotes {
    lines: Vec<String>,
    known: HashMap<String, usize>,
}

impl Footnotes {
    /// What stands beside the span. A link to its parent says nothing new, and is left out by the caller.
    fn marks(&mut self, links: &[Link], page: &Page<'_>) -> Option<String> {
        let mut marks = String::new();
        for link in links.iter().take(LINKS) {
            let name = (page.names)(link);
            let next = self.known.len() + 1;
            let number = *self.known.entry(name.clone()).or_insert(next);
            if number == next {
                self.lines
                    .push(wrap(&format!("[{number}] leads to {name}"), 4));
            }
            marks.push_str(&format!("[{number}]"));
        }
        if links.len() > LINKS {
            marks.push_str(&format!("[+{}]", links.len() - LINKS));
        }
        (!marks.is_empty()).then_some(marks)
    }
}

/// Where the time went: the spans that took most of it themselves, and the times of which nothing was recorded.
fn longest(entries: &[Entry<'_>]) -> Option<String> {
    let mut waits: Vec<(u64, String)> = Vec::new();
    let mut children: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    for entry in entries {
        if let Entry::Span { span, .. } = entry
            && let Some(parent) = span.parent.as_deref()
        {
            let of = children.entry(parent).or_default();
            of.push((span.began, span.until()));
        }
    }
    let mut gap = None;
    for entry in entries {
        match entry {
            Entry::Heading(_) => gap = None,
            Entry::Gap { from, until, .. } => gap = Some(until - from),
            Entry::Span { span, .. } => {
                let name = printable(&span.name);
                let before = gap.take().map(|nanos| (nanos, format!("before {name}")));
                waits.extend(before);
                let inside = children.get(span.span_id.as_str());
                let own = own_time(span, inside.map_or(&[], Vec::as_slice));
                waits.push((own, format!("{name} of {}", printable(&span.service))));
            }
        }
    }
    waits.retain(|(nanos, _)| *nanos >= 1_000_000);
    waits.sort_by_key(|(nanos, _)| std::cmp::Reverse(*nanos));
    let waits: Vec<String> = waits
        .into_iter()
        .take(LONGEST)
        .map(|(nanos, name)| format!("{} {name}", time(nanos.into())))
        .collect();
    let text = format!("most of the time: {}", waits.join("; "));
    (!waits.is_empty()).then(|| wrap(&text, 2))
}

/// The part of a span in which none of its children ran. The children are in the order in which they began.
fn own_time(span: &Span, children: &[(u64, u64)]) -> u64 {
    let (mut own, mut at) = (0, span.began);
    for (from, until) in children {
        let from = (*from).clamp(at, span.until());
        own += from - at;
        at = at.max((*until).min(span.until()));
    }
    own + (span.until() - at)
}

/// Milliseconds, as long as they are readable.
fn time(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    #[expect(clippy::cast_precision_loss, reason = "shown with four digits")]
    let ms = nanos.unsigned_abs() as f64 / 1e6;
    match ms {
        ms if ms < 99.95 => format!("{sign}{ms:.1} ms"),
        ms if ms < 99_999.5 => format!("{sign}{ms:.0} ms"),
        ms => format!("{sign}{}", rounded(ms / 1e3)),
    }
}

#[cfg(test)]
mod tests;
