//! What the view shows and what the keys change.

use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::panes::PANES;
use crate::overview::Overview;

/// See the module.
#[derive(Debug)]
pub(super) struct Screen {
    /// `None` until the first one was read.
    pub(super) overview: Option<Overview>,
    /// When it was read.
    pub(super) read_at: Instant,
    /// `None` of a still.
    interval: Option<Duration>,
    pub(super) colors: bool,
    /// The pane that the arrows scroll.
    pub(super) focus: usize,
    /// The first line that each pane shows.
    pub(super) scrolled: [usize; PANES],
    is_paused: bool,
    pub(super) shows_help: bool,
}

/// What a key leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    Quit,
}

/// Lines of one PageDown.
const PAGE: usize = 5;

impl Screen {
    pub(super) fn new(interval: Duration, colors: bool) -> Self {
        Self {
            overview: None,
            read_at: Instant::now(),
            interval: Some(interval),
            colors,
            focus: 0,
            scrolled: [0; PANES],
            is_paused: false,
            shows_help: false,
        }
    }

    /// One frame that nobody looks at live.
    pub(super) fn still(overview: Overview) -> Self {
        Self {
            overview: Some(overview),
            interval: None,
            ..Self::new(Duration::ZERO, false)
        }
    }

    pub(super) fn is_still(&self) -> bool {
        self.interval.is_none()
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval.unwrap_or_default()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub(super) fn show(&mut self, overview: Option<Overview>) {
        self.overview = overview;
        self.read_at = Instant::now();
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Step {
        if key.kind == KeyEventKind::Release {
            return Step::Stay;
        }
        let scrolled = &mut self.scrolled[self.focus];
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Step::Quit;
            }
            KeyCode::Char('q') => return Step::Quit,
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            KeyCode::Char('?') => self.shows_help = !self.shows_help,
            KeyCode::Esc => self.shows_help = false,
            KeyCode::Tab | KeyCode::Right => self.focus = (self.focus + 1) % PANES,
            KeyCode::BackTab | KeyCode::Left => self.focus = (self.focus + PANES - 1) % PANES,
            KeyCode::Down => *scrolled += 1,
            KeyCode::Up => *scrolled = scrolled.saturating_sub(1),
            KeyCode::PageDown => *scrolled += PAGE,
            KeyCode::PageUp => *scrolled = scrolled.saturating_sub(PAGE),
            KeyCode::Home => *scrolled = 0,
            _ => {}
        }
        Step::Stay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_pause_choose_scroll_and_end() {
        let mut screen = Screen::new(Duration::from_secs(2), true);
        let mut press = |code| {
            let step = screen.press(KeyEvent::from(code));
            (
                step,
                screen.focus,
                screen.scrolled[screen.focus],
                screen.is_paused,
            )
        };
        assert_eq!(press(KeyCode::Char('p')), (Step::Stay, 0, 0, true));
        assert_eq!(press(KeyCode::BackTab), (Step::Stay, PANES - 1, 0, true));
        assert_eq!(press(KeyCode::Tab), (Step::Stay, 0, 0, true));
        assert_eq!(press(KeyCode::Down), (Step::Stay, 0, 1, true));
        assert_eq!(press(KeyCode::PageUp), (Step::Stay, 0, 0, true));
        assert_eq!(press(KeyCode::Char('c')).0, Step::Stay);
        assert_eq!(press(KeyCode::Char('q')).0, Step::Quit);
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(screen.press(ctrl_c), Step::Quit);
    }
}
