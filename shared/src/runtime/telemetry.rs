//! Logs: JSON for machines, text for people, on standard error.
//!
//! A thread of its own writes them. If the reader of the log stalls, lines are dropped and counted; if it goes away,
//! nothing happens. A write in the logging task itself would block every worker thread in the first case and panic in the
//! second (tracing-subscriber reports a failed write with `eprintln!`).

use std::fmt;
use std::io::IsTerminal;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use clap::ValueEnum;
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer, format};
use tracing_subscriber::registry::LookupSpan;

use super::trace::{self, Ids};

/// How this program logs.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// Which records are written, in `tracing` directives (`info`, `info,relay=debug`).
    #[arg(long, env = "RUST_LOG", default_value = "info", value_parser = parse_filter)]
    pub rust_log: String,

    /// `json` for machines, `text` for people.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Lines that wait for the reader of the log: a few megabytes at most, and some seconds of a program that logs much.
const LINES_WAITING: usize = 8_192;
/// How long the end of a program waits for the last lines to be written.
const FLUSH: Duration = Duration::from_secs(2);

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines that were dropped so far, because the reader of the log was too slow.
pub fn dropped_lines() -> u64 {
    let dropped = DROPPED.get().map_or(0, ErrorCounter::dropped_lines);
    u64::try_from(dropped).unwrap_or(u64::MAX)
}

/// Writes what is left of the log when it is dropped. Keep it until `main` ends.
#[derive(Debug)]
pub struct Flush(Option<WorkerGuard>);

impl Drop for Flush {
    fn drop(&mut self) {
        let guard = self.0.take();
        let (done, flushed) = mpsc::channel();
        // In a thread, because the guard itself writes to standard output if the log is stalled.
        std::thread::spawn(move || {
            drop(guard);
            // The receiver may have given up.
            let _ = done.send(());
        });
        // A reader that does not read must not keep the program from ending.
        let _ = flushed.recv_timeout(FLUSH);
    }
}

/// Installs the subscriber of this process; call once, from `main`.
pub fn init(args: &LogArgs) -> Flush {
    let filter = EnvFilter::new(&args.rust_log);
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING)
        .thread_name("log")
        .finish(std::io::stderr());
    DROPPED.get_or_init(|| writer.error_counter());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match args.log_format {
        LogFormat::Json => builder
            .json()
            .event_format(WithIds {
                lines: format().json().flatten_event(true),
                is_json: true,
            })
            .init(),
        // Colors are for terminals: in a file they are noise.
        LogFormat::Text => builder
            .event_format(WithIds {
                lines: format().with_ansi(std::io::stderr().is_terminal()),
                is_json: false,
            })
            .init(),
    }
    Flush(Some(guard))
}

/// Lines that end with the ids of what their task works for, in the names of the OpenTelemetry rules for logs.
struct WithIds<L> {
    lines: L,
    is_json: bool,
}

impl<S, N, L> FormatEvent<S, N> for WithIds<L>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    L: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(ids) = trace::current_ids() else {
            return self.lines.format_event(context, writer, event);
        };
        let mut line = String::with_capacity(512);
        self.lines
            .format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        let Ids {
            trace_id, span_id, ..
        } = ids;
        // Ids of requests have only characters that JSON writes as they are.
        let request_id = ids.request_id.as_ref().map(|id| &*id.0);
        if let Some(fields) = line.strip_suffix('}').filter(|_| self.is_json) {
            write!(
                writer,
                r#"{fields},"trace_id":"{trace_id}","span_id":"{span_id}""#
            )?;
            if let Some(id) = request_id {
                write!(writer, r#","request.id":"{id}""#)?;
            }
            return writeln!(writer, "}}");
        }
        write!(writer, "{line} trace_id={trace_id} span_id={span_id}")?;
        if let Some(id) = request_id {
            write!(writer, " request.id={id}")?;
        }
        writeln!(writer)
    }
}
