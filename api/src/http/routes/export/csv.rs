//! CSV (RFC 4180) that a spreadsheet shows but does not execute.

use bytes::Bytes;
use csv::{Terminator, Writer, WriterBuilder};
use shared::domain::timestamp::timestamp_text;

use crate::store::EventRow;

const HEAD: [&str; 12] = [
    "return_id",
    "seq",
    "event_id",
    "event_type",
    "actor_type",
    "actor_id",
    "request_id",
    "trace_id",
    "created_at",
    "event_data",
    "prev_hash",
    "hash",
];

/// The rows; before them the header line, unless it was written already.
pub(super) fn chunk(rows: &[EventRow], begun: bool) -> Bytes {
    let mut out = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .from_writer(Vec::new());
    if !begun {
        record(&mut out, HEAD.map(str::to_owned));
    }
    for row in rows {
        record(&mut out, cells(row));
    }
    Bytes::from(out.into_inner().expect("into memory"))
}

fn cells(row: &EventRow) -> [String; 12] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        row.return_id.to_string(),
        row.seq.to_string(),
        row.event_id.to_string(),
        row.event_type.clone(),
        row.actor_type.clone(),
        row.actor_id.clone(),
        text(&row.request_id),
        text(&row.trace_id),
        timestamp_text(row.position.created_at),
        row.event_data.clone(),
        row.prev_hash.clone(),
        row.hash.clone(),
    ]
}

fn record(out: &mut Writer<Vec<u8>>, cells: [String; 12]) {
    out.write_record(cells.map(disarm)).expect("into memory");
}

/// A spreadsheet executes a cell that begins with one of these (OWASP ASVS 5.0, 1.2.10), also in its full-width form.
const FORMULA: [char; 8] = [
    '=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
];

/// Puts a quote before text that a spreadsheet would execute. In many countries a spreadsheet separates cells at
/// semicolons or tabs and does not regard our quotes, so text after a separator counts as the begin of a cell, too.
fn disarm(cell: String) -> String {
    let mut safe = String::with_capacity(cell.len() + 1);
    if cell.starts_with(['\t', '\r', '\0']) {
        safe.push('\'');
    }
    let mut begins_cell = true;
    for character in cell.chars() {
        if begins_cell && FORMULA.contains(&character) {
            safe.push('\'');
        }
        begins_cell = match character {
            ',' | ';' | '\t' | '\r' | '\n' | '\0' => true,
            // Some programs skip these before a formula.
            ' ' | '"' => begins_cell,
            _ => false,
        };
        safe.push(character);
    }
    safe
}

#[cfg(test)]
mod tests {
    use shared::domain::ids::{EventId, ReturnId};
    use time::macros::datetime;
    use uuid::uuid;

    use super::*;
    use crate::store::Position;

    fn row(request_id: Option<&str>, event_data: &str) -> EventRow {
        EventRow {
            position: Position {
                created_at: datetime!(2026-11-23 02:15:00.123456 UTC),
                id: 1,
            },
            return_id: ReturnId(7),
            seq: 1,
            event_id: EventId(uuid!("019ab000-0000-7000-8000-000000000001")),
            event_type: "return.initiated".to_owned(),
            event_data: event_data.to_owned(),
            actor_type: "customer".to_owned(),
            actor_id: "42".to_owned(),
            request_id: request_id.map(str::to_owned),
            trace_id: None,
            prev_hash: "00".to_owned(),
            hash: "c4".to_owned(),
        }
    }

    #[test]
    fn cells_are_quoted_where_they_must_be_and_lines_end_as_the_rfc_says() {
        let rows = [
            row(None, r#"{"to":"initiated"}"#),
            row(Some("a,b"), "x\r\ny\""),
        ];
        let text = String::from_utf8(chunk(&rows, true).to_vec()).expect("text");
        let begin = "7,1,019ab000-0000-7000-8000-000000000001,return.initiated,customer,42";
        let time = "2026-11-23T02:15:00.123456Z";
        assert_eq!(
            text,
            format!(
                "{begin},,,{time},\"{{\"\"to\"\":\"\"initiated\"\"}}\",00,c4\r\n\
                 {begin},\"a,b\",,{time},\"x\r\ny\"\"\",00,c4\r\n"
            )
        );
    }

    #[test]
    fn the_head_is_written_once() {
        let head = format!("{}\r\n", HEAD.join(","));
        assert_eq!(chunk(&[], false), head);
        assert!(chunk(&[], true).is_empty());
    }

    #[test]
    fn a_spreadsheet_executes_no_cell() {
        for first in ["=", "+", "-", "@", "\t", "\r", "\0"] {
            let cell = format!("{first}1+1");
            assert_eq!(disarm(cell.clone()), format!("'{cell}"), "{first:?}");
        }
        for (cell, safe) in [
            ("x;=WEBSERVICE(A1);", "x;'=WEBSERVICE(A1);"),
            ("x\t@SUM(A1)", "x\t'@SUM(A1)"),
            ("a,-1,+2", "a,'-1,'+2"),
            ("a\r\n=1", "a\r\n'=1"),
            (" =1", " '=1"),
            ("x;\"=1\"", "x;\"'=1\""),
            ("\u{ff1d}1", "'\u{ff1d}1"),
        ] {
            assert_eq!(disarm(cell.to_owned()), safe);
        }
        for harmless in ["", "a=1", "'=1", "{}", "42", "a-b", r#"{"a":-1,"b":"c;d"}"#] {
            assert_eq!(disarm(harmless.to_owned()), harmless);
        }
    }
}
