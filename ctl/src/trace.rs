//! `returnsctl trace`: where a return has been, and what it waited for.
//!
//! From the spans of a trace backend, if there is one that answers, else from the rows: they know less, and are always
//! there. A return may have several traces, because a decision, a retry and a redriven dead letter begin new ones.

mod backend;
mod otlp;
mod page;
mod rows;
mod span;
mod tree;

use std::process::ExitCode;

use reqwest::Url;
use serde::Serialize;
use shared::domain::ids::ReturnId;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use self::backend::Backend;
use self::page::Page;
use self::rows::{NOT_KNOWN, Part, Rows};
use self::span::{Link, Span};
use crate::error::CtlError;
use crate::http::parse_url;
use crate::layout::{fit, terminal_width};
use crate::output;
use crate::return_head::ReturnHead;
use crate::return_id::{no_such_return, parse_return};
use crate::session::SessionArgs;
use crate::store::returns::{ReturnRow, read_return};
use crate::store::{refunds, trace as store};
use crate::text::counted;

const HELP: &str = "\
Without TRACE_QUERY_URL, or for a trace that the backend does not have, it shows what the rows of the database know. A \
backend that cannot be reached ends it with 2, one that answers something else with 1; the rows are shown all the same.

Examples:
  returnsctl trace 7
  returnsctl trace 7 --trace-query-url http://localhost:16686
  returnsctl trace 7 --json";

/// Show where a return has been and what it waited for, from the request to the refund.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The return's id.
    #[arg(value_name = "RETURN", value_parser = parse_return)]
    return_id: ReturnId,

    /// Address of Jaeger's query API, which is that of its pages too.
    #[arg(
        long,
        env = "TRACE_QUERY_URL",
        value_name = "URL",
        hide_env_values = true,
        value_parser = |text: &str| parse_url("TRACE_QUERY_URL", text)
    )]
    trace_query_url: Option<Url>,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    head: ReturnHead,
    traces: Vec<Trace>,
}

#[derive(Debug, Serialize)]
struct Trace {
    trace_id: Option<String>,
    source: Source,
    /// Why it is not from the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<String>,
    /// What it began with, if it is not the first one.
    follows: Option<String>,
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    Backend,
    Rows,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let id = args.return_id;
    let session = args.session.connect().await?;
    let read = session.read("read_trace", move |conn| Box::pin(read(conn, id)));
    let (row, rows) = read.await?.ok_or_else(|| no_such_return(id))?;
    let backend = args.trace_query_url.as_ref().map(Backend::new);
    let backend = backend.transpose()?;
    let (traces, failure) = traces(&rows, backend.as_ref()).await;
    let report = Report {
        head: ReturnHead::of(id, &row),
        traces,
    };
    if args.session.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.text(terminal_width()))?;
    }
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// The rows of a return, from one snapshot.
async fn read(conn: &mut MySqlConnection, id: ReturnId) -> sqlx::Result<Option<(ReturnRow, Rows)>> {
    refunds::snapshot_next(conn).await?;
    let mut tx = conn.begin().await?;
    let Some(row) = read_return(&mut tx, id).await? else {
        return Ok(None);
    };
    let rows = Rows {
        events: store::traced_events(&mut tx, id).await?,
        unsent: store::unsent_events(&mut tx, row.order_id, id).await?,
        attempts: refunds::read_attempts(&mut tx, id).await?,
        actions: store::actions_of(&mut tx, id).await?,
    };
    tx.rollback().await?;
    Ok(Some((row, rows)))
}

/// All traces, and why the backend was of no help. It is not asked again after it has failed.
async fn traces(rows: &Rows, backend: Option<&Backend>) -> (Vec<Trace>, Option<CtlError>) {
    let parts = rows.parts();
    let (mut traces, mut failure) = (Vec::new(), None);
    for part in &parts {
        let asked = match (backend, &part.trace_id) {
            (None, _) => Err("TRACE_QUERY_URL is not set".to_owned()),
            (Some(_), None) => Err("the event has no trace id".to_owned()),
            (Some(_), Some(_)) if !rows.is_recorded(part) => Err("it was not sampled".to_owned()),
            (Some(backend), Some(_)) if failure.is_some() => Err(no_help(backend)),
            (Some(backend), Some(trace_id)) => match backend.trace(trace_id).await {
                Ok(Some(spans)) => Ok(spans),
                Ok(None) => Err(format!("{} does not have it", backend.address())),
                Err(error) => {
                    failure = Some(error);
                    Err(no_help(backend))
                }
            },
        };
        traces.push(Trace::of(rows, part, &parts, asked));
    }
    (traces, failure)
}

fn no_help(backend: &Backend) -> String {
    format!("{} gave no answer that is a trace", backend.address())
}

impl Trace {
    fn of(rows: &Rows, part: &Part, parts: &[Part], asked: Result<Vec<Span>, String>) -> Self {
        let (source, because, spans) = match asked {
            Ok(spans) => (Source::Backend, None, spans),
            Err(why) => (Source::Rows, Some(why), rows.spans(part)),
        };
        Self {
            trace_id: part.trace_id.clone(),
            source,
            because,
            follows: rows.follows(part, parts),
            spans,
        }
    }

    fn title(&self, number: usize, of: usize) -> String {
        let id = self.trace_id.as_deref().unwrap_or("without an id");
        let took = page::took(&self.spans);
        let title = format!("trace {number} of {of}: {id}");
        let source = match &self.because {
            None => format!("{}, {took}", counted(self.spans.len(), "span")),
            Some(why) => format!("{took}, from the rows: {why}"),
        };
        let follows = self.follows.iter().map(|text| format!("\n{text}"));
        format!("{title}\n{source}{}", follows.collect::<String>())
    }
}

impl Report {
    fn text(&self, width: usize) -> String {
        let mut parts = vec![fit(&self.head.title())];
        for (place, trace) in self.traces.iter().enumerate() {
            let heads = match trace.source {
                Source::Backend => ["span", "service"],
                Source::Rows => ["what", "by"],
            };
            let page = Page {
                width,
                heads,
                names: &|link| self.name(trace, link),
            };
            let title = trace.title(place + 1, self.traces.len());
            parts.push(format!(
                "{}\n{}",
                fit(&title),
                page::text(&trace.spans, &page)
            ));
        }
        if self.traces.iter().any(|trace| trace.source == Source::Rows) {
            parts.push(fit(NOT_KNOWN));
        }
        parts.join("\n\n")
    }

    /// What a link of a span of `from` leads to.
    fn name(&self, from: &Trace, link: &Link) -> String {
        let is_target = |trace: &&Trace| trace.trace_id.as_deref() == Some(&link.trace_id);
        let traces = self.traces.iter().enumerate();
        let mut known = traces.filter(|(_, trace)| is_target(trace));
        let Some((place, trace)) = known.next() else {
            return format!("span {} of trace {}", link.span_id, link.trace_id);
        };
        let mut spans = trace.spans.iter();
        let span = spans.find(|span| span.span_id == link.span_id);
        let span = span.map_or_else(
            || format!("span {}", link.span_id),
            |span| span.name.clone(),
        );
        if trace.trace_id == from.trace_id {
            format!("{span}, above or below")
        } else {
            format!("{span} of trace {}", place + 1)
        }
    }
}
