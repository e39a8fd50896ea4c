//! `returnsctl dead-letters show`

use std::process::ExitCode;

use serde::Serialize;

use super::record::{Line, headers, no_such_dead_letter};
use crate::error::CtlError;
use crate::output;
use crate::session::SessionArgs;
use crate::store::dead_letters::{DeadLetter, WHOLE, read_dead_letter};
use crate::store::outbox::PAYLOAD_SHOWN;
use crate::text::{Beginning, Shown, printable};

const HELP: &str = "\
Key, headers and payload are shown as text where they are UTF-8, else in hexadecimal digits. Control characters are \
escaped, because a terminal obeys them. At most 16 KiB of the payload are shown; --raw writes all of it, byte for byte.

Example:
  returnsctl dead-letters show 7 --raw >record.bin";

/// Show a dead letter with key, headers and payload.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The dead letter, as `returnsctl dead-letters list` shows it.
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    id: i64,

    /// Write the exact bytes of the payload to standard output, and nothing else. Not for a terminal.
    #[arg(long, conflicts_with = "json")]
    raw: bool,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    line: Line,
    /// `None` for a record without a key.
    key: Option<Shown>,
    headers: Vec<HeaderView>,
    #[serde(flatten)]
    payload: Option<Beginning>,
}

#[derive(Debug, Serialize)]
struct HeaderView {
    name: String,
    /// `None` for a header without a value.
    value: Option<Shown>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let session = args.session.connect().await?;
    let (id, bytes) = (args.id, if args.raw { WHOLE } else { PAYLOAD_SHOWN });
    let found = session.read("read_dead_letter", move |conn| {
        Box::pin(read_dead_letter(conn, id, bytes))
    });
    let letter = found.await?.ok_or_else(|| no_such_dead_letter(id))?;
    if args.raw {
        output::print_bytes(letter.payload.as_deref().unwrap_or_default())?;
    } else {
        output::report(&Report::of(letter)?, args.session.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn of(letter: DeadLetter) -> Result<Self, CtlError> {
        let view = |(name, value): (String, Option<Vec<u8>>)| HeaderView {
            name,
            value: value.map(Shown::of),
        };
        let headers = headers(&letter)?.into_iter().map(view).collect();
        let payload = letter
            .payload
            .zip(letter.summary.payload_bytes)
            .map(|(shown, bytes)| Beginning::of(shown, bytes));
        Ok(Self {
            key: letter.msg_key.map(Shown::of),
            headers,
            payload,
            line: Line::from(letter.summary),
        })
    }
}

impl output::Report for Report {
    fn text(&self) -> String {
        let shown = |value: &Option<Shown>| {
            value
                .as_ref()
                .map_or_else(|| "(none)".to_owned(), Shown::line)
        };
        let mut lines = vec![
            format!(
                "dead letter {}: {} at {}",
                self.line.id,
                printable(&self.line.code),
                self.line.position()
            ),
            format!(
                "  record time {}, received {}",
                self.line.record_time(),
                self.line.received_at
            ),
            format!("  key: {}", shown(&self.key)),
        ];
        let headers = self.headers.iter();
        lines.extend(headers.map(|header| {
            let name = printable(&header.name);
            format!("  header {name}: {}", shown(&header.value))
        }));
        lines.push(match self.payload.as_ref().zip(self.line.payload_bytes) {
            Some((payload, bytes)) => format!("  {}", payload.line(bytes)),
            None => "  no payload".to_owned(),
        });
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::store::dead_letters::DeadLetterSummary;

    #[test]
    fn wide_values_fit() {
        let letter = DeadLetter {
            summary: DeadLetterSummary {
                id: i64::MAX,
                topic: "t".repeat(249),
                partition_id: 11,
                offset_id: i64::MAX,
                record_time: 1_795_400_000_123,
                reason: "unreadable_header".to_owned(),
                received_at: datetime!(2026-11-23 12:00:00.123456 UTC),
                payload_bytes: Some(1_048_588),
                redriven: 0,
            },
            msg_key: Some(vec![0xff; 300]),
            payload: Some(b"{\"return_id\": 456, \"order_id\": 4711} ".repeat(9)),
            headers: br#"[["a","00ff"]]"#.to_vec(),
        };
        output::expect_fits(&Report::of(letter).expect("readable headers"));
    }
}
