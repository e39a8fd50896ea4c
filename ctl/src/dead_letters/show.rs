//! `returnsctl dead-letters show`

use std::process::ExitCode;

use serde::Serialize;

use super::letter::{Line, headers, no_such_letter};
use crate::error::CtlError;
use crate::output;
use crate::session::SessionArgs;
use crate::store::dead_letters::{Letter, WHOLE, read_letter};
use crate::store::outbox::PAYLOAD_SHOWN;
use crate::text::{Beginning, Shown, printable};

const EXAMPLE: &str = "\
Key, headers and payload are shown as text where they are UTF-8, else in hexadecimal digits; control characters are
escaped, because a terminal obeys them. Payloads are shown up to 16 KiB; --raw writes all of it, byte for byte.

Example:
  returnsctl dead-letters show 7 --raw >record.bin";

/// Show a dead letter with key, headers and payload.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
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
    /// Null for a record without a key.
    key: Option<Shown>,
    headers: Vec<HeaderView>,
    #[serde(flatten)]
    payload: Option<Beginning>,
}

#[derive(Debug, Serialize)]
struct HeaderView {
    name: String,
    /// Null for a header without a value.
    value: Option<Shown>,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let mut conn = args.session.connect().await?;
    let bytes = if args.raw { WHOLE } else { PAYLOAD_SHOWN };
    let letter = read_letter(&mut conn, args.id, bytes)
        .await?
        .ok_or_else(|| no_such_letter(args.id))?;
    if args.raw {
        output::print_bytes(letter.payload.as_deref().unwrap_or_default())?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = Report::of(letter)?;
    if args.session.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn of(letter: Letter) -> Result<Self, CtlError> {
        let view = |(name, value): (String, Option<Vec<u8>>)| HeaderView {
            name,
            value: value.map(Shown::of),
        };
        let headers = headers(&letter)?.into_iter().map(view).collect();
        let payload = letter
            .payload
            .zip(letter.row.payload_bytes)
            .map(|(shown, bytes)| Beginning::of(shown, bytes));
        Ok(Self {
            key: letter.msg_key.map(Shown::of),
            headers,
            payload,
            line: Line::from(letter.row),
        })
    }

    fn text(&self) -> String {
        let shown = |value: &Option<Shown>| {
            value
                .as_ref()
                .map_or_else(|| "(none)".to_owned(), Shown::line)
        };
        let mut lines = vec![
            format!(
                "dead letter {}: {}, stood at {}",
                self.line.id,
                printable(&self.line.code),
                self.line.place()
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
