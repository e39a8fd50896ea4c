//! `returnsctl top`: what `status` shows, as a live view.
//!
//! A task reads one overview after the other; the view never waits for it. The terminal is restored when the view ends,
//! also by an error, a panic or a signal.

mod panes;
mod screen;
mod view;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use crossterm::event::{Event, EventStream};
use futures_util::StreamExt;
use ratatui::DefaultTerminal;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use self::screen::{Screen, Step};
use crate::error::CtlError;
use crate::layout::WIDTH;
use crate::output;
use crate::overview::{Collector, Overview, SourceArgs};

const HELP: &str = "\
Keys: q or Ctrl-C ends, p pauses, Tab, Left and Right choose a pane, Up, Down and PageUp/PageDown scroll it, ? shows this.

Rates, errors and topics in trouble come from the operator's ports of the programs (--ops), alerts from Prometheus \
(--prometheus-url); without them the view says how to set them. If a source goes away, its last values stay and are marked \
OLD with their age.

Examples:
  returnsctl top
  returnsctl top --ops 127.0.0.1:9101,127.0.0.1:9102,127.0.0.1:9103
  returnsctl top --once
  returnsctl top --json --interval 10

Exit codes: 0 when a person ended it; 1 without a terminal; with --once and --json those of `returnsctl status`; 64 bad usage.";

/// Show the system live: rates, queues, shards, what waits for a person, alerts.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourceArgs,

    /// Seconds between two readings. Too low costs the servers work, too high hides what happens.
    #[arg(long, value_name = "SECS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    interval: u64,

    /// Print one frame as text, also without a terminal. With --ops it reads twice, for the rates.
    #[arg(long)]
    once: bool,

    /// As --once, but print the data as one JSON document.
    #[arg(long)]
    json: bool,

    /// Use no colors. Also if NO_COLOR is set and not empty. Nothing is shown by a color alone.
    #[arg(long, env = "NO_COLOR", hide_env_values = true, default_value = "", value_parser = is_set)]
    no_color: bool,
}

/// As in <https://no-color.org>: any value but the empty one. `false` is that of a flag that is not given.
fn is_set(text: &str) -> Result<bool, std::convert::Infallible> {
    Ok(!text.is_empty())
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let interval = Duration::from_secs(args.interval);
    let rereads = args.sources.has_programs();
    let mut collector = Collector::new(args.sources)?;
    if !args.once && !args.json {
        return watch_live(collector, interval, !args.no_color).await;
    }
    let mut overview = collector.collect().await;
    if rereads {
        tokio::time::sleep(interval).await;
        overview = collector.collect().await;
    }
    let code = ExitCode::from(overview.exit_code);
    if args.json {
        output::print_json(&overview)?;
    } else {
        let width = u16::try_from(WIDTH).expect("a terminal is narrow");
        output::print(&view::text(&mut Screen::still(overview), width))?;
    }
    Ok(code)
}

async fn watch_live(
    collector: Collector,
    interval: Duration,
    colors: bool,
) -> Result<ExitCode, CtlError> {
    if !std::io::stdout().is_terminal() {
        return Err(CtlError::Problem(
            "standard output is no terminal.\nTo do: use --once or --json".to_owned(),
        ));
    }
    let screen = Screen::new(interval, colors);
    // Before the terminal is changed: a signal that comes between would end the program and leave it so.
    let signals = Signals::install().map_err(terminal_failed)?;
    // It also restores the terminal when the program panics.
    let ended = match ratatui::try_init() {
        Ok(mut terminal) => live(&mut terminal, screen, collector, signals).await,
        Err(error) => Err(terminal_failed(error)),
    };
    // Also if only a part of the change succeeded.
    ratatui::restore();
    ended
}

/// The signals that end the view.
struct Signals([Signal; 3]);

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
        ]))
    }

    async fn any(&mut self) {
        let [terminate, hang_up, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

async fn live(
    terminal: &mut DefaultTerminal,
    mut screen: Screen,
    collector: Collector,
    mut signals: Signals,
) -> Result<ExitCode, CtlError> {
    let (paused, is_paused) = watch::channel(false);
    let (sender, mut overviews) = watch::channel(None);
    let mut reading = tokio::spawn(read(collector, screen.interval(), is_paused, sender));
    let mut events = EventStream::new();
    // Ages in the header grow between two readings.
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        let drawn = terminal.draw(|frame| view::draw(frame, &mut screen));
        drawn.map_err(terminal_failed)?;
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) => match screen.press(key) {
                    Step::Quit => return Ok(ExitCode::SUCCESS),
                    Step::Stay => {
                        paused.send_replace(screen.is_paused());
                    }
                },
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(terminal_failed(error)),
                None => return Ok(ExitCode::SUCCESS),
            },
            Ok(()) = overviews.changed() => {
                screen.show(overviews.borrow_and_update().clone());
            }
            _ = tick.tick() => {}
            () = signals.any() => return Ok(ExitCode::SUCCESS),
            ended = &mut reading => {
                let cause = ended.err().map(|error| error.to_string()).unwrap_or_default();
                return Err(CtlError::Problem(format!("this is a bug of returnsctl: {cause}")));
            }
        }
    }
}

/// Reads on until nobody looks any more.
async fn read(
    mut collector: Collector,
    interval: Duration,
    mut is_paused: watch::Receiver<bool>,
    sender: watch::Sender<Option<Overview>>,
) {
    while is_paused.wait_for(|paused| !paused).await.is_ok() {
        let overview = collector.collect().await;
        if sender.send(Some(overview)).is_err() {
            return;
        }
        tokio::time::sleep(interval).await;
    }
}

fn terminal_failed(source: std::io::Error) -> CtlError {
    CtlError::Io {
        what: "cannot use the terminal".to_owned(),
        source,
    }
}
