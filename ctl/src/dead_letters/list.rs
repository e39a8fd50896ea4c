//! `returnsctl dead-letters list`

use std::process::ExitCode;

use serde::Serialize;

use super::letter::Line;
use crate::error::CtlError;
use crate::output;
use crate::session::SessionArgs;
use crate::store::dead_letters::{count_letters, list_letters};
use crate::text::{counted, or_dash, printable};

const EXAMPLE: &str = "\
A record becomes a dead letter when the refund consumer cannot use it: it cannot be read, or names no return of ours.
The partition goes on. A return whose own message was spoilt is found by the consumer's scan all the same.

To do: `returnsctl dead-letters show ID`, then redrive or discard.";

/// List dead letters: why each was put aside, where it stood in Kafka, and its size.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// Only records of this topic.
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,

    /// Only records that were put aside for this reason, as the list shows it.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,

    /// Most records to show, the oldest first.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=1_000))]
    limit: i64,

    /// Go on after this record, the last one of the page before.
    #[arg(long, value_name = "ID", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    after: i64,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    dead_letters: Vec<Line>,
    /// Of the whole table, also what is not listed.
    in_all: i64,
    /// What `--after` takes for the next page; null when this was the last.
    next_after: Option<i64>,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let mut conn = args.session.connect().await?;
    let (topic, code) = (args.topic.as_deref(), args.code.as_deref());
    let letters = list_letters(&mut conn, args.after, topic, code, args.limit).await?;
    let full = i64::try_from(letters.len()) == Ok(args.limit);
    let report = Report {
        next_after: letters.last().map(|letter| letter.id).filter(|_| full),
        dead_letters: letters.into_iter().map(Line::from).collect(),
        in_all: count_letters(&mut conn).await?,
    };
    if args.session.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn text(&self) -> String {
        if self.dead_letters.is_empty() {
            return "no such dead letters".to_owned();
        }
        let head = ["id", "why", "stood at", "record time", "received", "bytes"];
        let rows: Vec<[String; 6]> = self.dead_letters.iter().map(cells).collect();
        let mut text = format!(
            "{}\n\n{} in all",
            output::table(head, &rows),
            counted(self.in_all, "dead letter")
        );
        if let Some(last) = self.next_after {
            text.push_str(&format!("; there may be more: --after {last}"));
        }
        text
    }
}

fn cells(line: &Line) -> [String; 6] {
    [
        line.id.to_string(),
        printable(&line.code),
        line.place(),
        line.record_time(),
        line.received_at.clone(),
        or_dash(line.payload_bytes),
    ]
}
