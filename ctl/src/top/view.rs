//! One frame: a header, and the panes in one column or two.

use std::iter::zip;

use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};
use ratatui::{Frame, Terminal};

use super::panes::{PANES, Pane, Tone, panes};
use super::screen::Screen;
use crate::text::span;

/// From here on there are two columns.
const TWO_COLUMNS: u16 = 120;
/// The panes of the left column; the others are on the right.
const LEFT: [usize; 3] = [0, 2, 3];
const RIGHT: [usize; 2] = [1, 4];
const ALL: [usize; PANES] = [0, 1, 2, 3, 4];

const KEYS: [&str; 7] = [
    "q, Ctrl-C          end",
    "p                  pause, go on",
    "Tab, Left, Right   choose a pane; it gets the room that is left",
    "Up, Down           scroll the pane",
    "PageUp, PageDown   scroll it by five lines",
    "Home               to its first line",
    "?                  this page",
];

pub(super) fn draw(frame: &mut Frame<'_>, screen: &mut Screen) {
    let [header, body] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(frame.area());
    frame.render_widget(self::header(screen, header.width), header);
    let Some(overview) = screen.overview.as_ref().filter(|_| !screen.shows_help) else {
        let waiting = ["reading MySQL, Kafka and the programs …"];
        let lines = if screen.shows_help {
            &KEYS[..]
        } else {
            &waiting
        };
        let lines: Vec<Line<'_>> = lines.iter().map(|line| Line::raw(*line)).collect();
        frame.render_widget(Paragraph::new(lines), body);
        return;
    };
    if body.width < TWO_COLUMNS {
        let panes = panes(overview, body.width.into());
        column(frame, body, &panes, &ALL, screen);
        return;
    }
    let [left, _gap, right] = Layout::horizontal([
        Constraint::Fill(1),
        Constraint::Length(1),
        Constraint::Fill(1),
    ])
    .areas(body);
    let sides = [
        (left, panes(overview, left.width.into()), &LEFT[..]),
        (right, panes(overview, right.width.into()), &RIGHT[..]),
    ];
    for (area, panes, shown) in sides {
        column(frame, area, &panes, shown, screen);
    }
}

/// One frame as text, with all lines of all panes.
pub(super) fn text(screen: &mut Screen, width: u16) -> String {
    let panes = screen
        .overview
        .as_ref()
        .map(|overview| panes(overview, width.into()));
    let lines = panes.iter().flatten().map(|pane| pane.lines.len() + 1);
    let height = u16::try_from(lines.sum::<usize>() + 1).unwrap_or(u16::MAX);
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it is memory");
    terminal
        .draw(|frame| draw(frame, &mut *screen))
        .expect("it is memory");
    lines_of(terminal.backend().buffer()).join("\n")
}

fn lines_of(buffer: &Buffer) -> Vec<String> {
    let cells = buffer.content().chunks(buffer.area.width.into());
    let lines = cells.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
    lines.map(|line| line.trim_end().to_owned()).collect()
}

fn header(screen: &Screen, width: u16) -> Line<'static> {
    let Some(overview) = &screen.overview else {
        return Line::raw("returnsctl top   q quit");
    };
    let at = overview.taken_at.get(11..19).unwrap_or_default();
    let mut text = format!("returnsctl top  {at}Z");
    if !screen.is_still() {
        let age = screen.read_at.elapsed().as_secs();
        let state = if screen.is_paused() {
            "PAUSED"
        } else {
            "every"
        };
        let every = span(screen.interval().as_secs_f64());
        text.push_str(&format!("  {state} {every}, read {age} s ago"));
        let keys = ["  p pause  Tab pane  ? help  q quit", "  ? help  q quit"];
        let fits = |keys: &&str| text.len() + keys.len() <= width.into();
        text.push_str(keys.into_iter().find(fits).unwrap_or_default());
    }
    Line::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn column(frame: &mut Frame<'_>, area: Rect, panes: &[Pane], shown: &[usize], screen: &mut Screen) {
    let heights = heights(panes, shown, screen.focus, area.height.into());
    let constraints = heights.iter().map(|height| Constraint::Length(*height));
    let areas = Layout::vertical(constraints).split(area);
    for (&at, area) in zip(shown, areas.iter()) {
        pane(frame, *area, at, &panes[at], screen);
    }
}

/// Each pane gets what it needs at least, with its title; then the chosen one what it wants, then the others.
fn heights(panes: &[Pane], shown: &[usize], focus: usize, room: usize) -> Vec<u16> {
    let mut heights = vec![0; panes.len()];
    let mut left = room;
    let mut grow = |at: usize, to: usize| {
        let more = to.saturating_sub(heights[at]).min(left);
        heights[at] += more;
        left -= more;
    };
    for &at in shown {
        grow(at, 1);
    }
    for &at in shown {
        grow(at, 1 + panes[at].at_least.min(panes[at].lines.len()));
    }
    let chosen = shown.iter().filter(|at| **at == focus);
    for &at in chosen.chain(shown) {
        grow(at, 1 + panes[at].lines.len());
    }
    let shown = shown.iter().map(|at| u16::try_from(heights[*at]));
    shown.map(|height| height.unwrap_or(u16::MAX)).collect()
}

fn pane(frame: &mut Frame<'_>, area: Rect, at: usize, pane: &Pane, screen: &mut Screen) {
    let room = usize::from(area.height.saturating_sub(1));
    let first = screen.scrolled[at].min(pane.lines.len().saturating_sub(room));
    // A key that would scroll past the end has no effect, so that the next one upwards has.
    screen.scrolled[at] = first;
    let below = pane.lines.len().saturating_sub(first + room);
    let is_chosen = screen.focus == at && !screen.is_still();
    let mark = if is_chosen { "> " } else { "" };
    let mut block = Block::new()
        .borders(Borders::TOP)
        .title_top(format!(" {mark}{} ", pane.title));
    if below > 0 || first > 0 {
        let more = format!(" {first} above, {below} below ");
        block = block.title_top(Line::raw(more).right_aligned());
    }
    if is_chosen {
        block = block.border_style(Style::new().add_modifier(Modifier::BOLD));
    }
    let lines = pane.lines.iter().skip(first).take(room);
    let lines: Vec<Line<'_>> = lines
        .map(|(text, tone)| Line::from(Span::styled(text.as_str(), style(*tone, screen.colors))))
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn style(tone: Tone, colors: bool) -> Style {
    let (color, modifier) = match tone {
        Tone::Plain => return Style::new(),
        Tone::Notice => (Color::Yellow, Modifier::empty()),
        Tone::Bad => (Color::Red, Modifier::BOLD),
    };
    let style = Style::new().add_modifier(modifier);
    if colors { style.fg(color) } else { style }
}

#[cfg(test)]
mod tests;
