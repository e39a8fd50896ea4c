//! `returnsctl dead-letters list`

use std::process::ExitCode;

use serde::Serialize;

use super::record::Line;
use crate::error::CtlError;
use crate::layout::{Row, table};
use crate::output;
use crate::session::SessionArgs;
use crate::store::dead_letters::{count_dead_letters, list_dead_letters};
use crate::text::{counted, or_dash, printable, to_second};

const HELP: &str = "\
A record becomes a dead letter when the refund consumer cannot use it: the record cannot be read, or names no return of \
ours. Its partition continues. If the message of a return was damaged, the consumer's scan still finds the return.

To do: `returnsctl dead-letters show ID`, then redrive or discard.";

/// List dead letters: the reason, the position in Kafka, and the size of each.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Only records of this topic.
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,

    /// Only records with this reason, as the list shows it.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,

    /// Show at most this many records, the oldest first.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=1_000))]
    limit: i64,

    /// Continue after this record, the last one of the page before.
    #[arg(long, value_name = "ID", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    after: i64,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    dead_letters: Vec<Line>,
    /// Of the whole table, including records that are not listed.
    in_all: i64,
    /// The value of `--after` for the next page; `None` on the last page.
    next_after: Option<i64>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let session = args.session.connect().await?;
    let (topic, code, after, limit) = (args.topic, args.code, args.after, args.limit);
    let listed = session.read("list_dead_letters", move |conn| {
        Box::pin(async move {
            list_dead_letters(conn, after, topic.as_deref(), code.as_deref(), limit).await
        })
    });
    let listed = listed.await?;
    let count = session.read("count_dead_letters", |conn| {
        Box::pin(count_dead_letters(conn))
    });
    let full = i64::try_from(listed.len()) == Ok(limit);
    let report = Report {
        next_after: listed.last().map(|last| last.id).filter(|_| full),
        dead_letters: listed.into_iter().map(Line::from).collect(),
        in_all: count.await?,
    };
    output::report(&report, args.session.json)?;
    Ok(ExitCode::SUCCESS)
}

impl output::Report for Report {
    fn text(&self) -> String {
        if self.dead_letters.is_empty() {
            return "No dead letters.".to_owned();
        }
        let head = ["id", "reason", "position", "received", "bytes"];
        let rows: Vec<Row<5>> = self.dead_letters.iter().map(row).collect();
        let mut text = format!(
            "{}\n\n{} in total",
            table(head, &rows),
            counted(self.in_all, "dead letter")
        );
        if let Some(last) = self.next_after {
            text.push_str(&format!("; there may be more: --after {last}"));
        }
        text
    }
}

fn row(line: &Line) -> Row<5> {
    let mut row = Row::from([
        line.id.to_string(),
        printable(&line.code),
        line.position(),
        to_second(&line.received_at),
        or_dash(line.payload_bytes),
    ]);
    if line.redriven > 0 {
        let times = counted(line.redriven, "time");
        row.below.push(format!(
            "came back after a redrive, {times}: another one helps only if its cause was removed"
        ));
    }
    row
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::store::dead_letters::DeadLetterSummary;

    #[test]
    fn wide_values_fit() {
        let summary = |topic: &str, offset_id| DeadLetterSummary {
            id: 1_000_000,
            topic: topic.to_owned(),
            partition_id: 11,
            offset_id,
            record_time: 1_795_400_000_123,
            reason: "unreadable_header".to_owned(),
            received_at: datetime!(2026-11-23 12:00:00.123456 UTC),
            payload_bytes: Some(1_048_588),
            redriven: 2,
        };
        let wide = [
            summary("order.returns", 1_000),
            summary(&"t".repeat(249), i64::MAX),
        ];
        let text = output::expect_fits(&Report {
            dead_letters: wide.map(Line::from).into(),
            in_all: i64::MAX,
            next_after: Some(i64::MAX),
        });
        assert!(text.contains("unreadable_header"), "{text}");
    }
}
