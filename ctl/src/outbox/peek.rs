//! `returnsctl outbox peek`

use std::process::ExitCode;

use clap::ArgGroup;
use serde::Serialize;
use shared::domain::event::{Envelope, header};
use shared::domain::ids::{EventId, OrderId, ReturnId, Shard};
use uuid::Uuid;

use super::shard::parse_shard;
use crate::error::CtlError;
use crate::output;
use crate::session::SessionArgs;
use crate::store::outbox::{self as store, PeekedRow, RowFilter};
use crate::text::{Payload, counted, printable, rfc3339};

const HELP: &str = "\
The headers are those of the record in Kafka, without x-outbox-epoch, which the relay adds when it sends. At most 16 KiB \
of a payload are shown: as text where they are UTF-8, else in hexadecimal digits.";

/// Show rows that wait in the outbox or are parked, lowest id first, with headers and payload.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
#[command(group(ArgGroup::new("which")))]
pub(super) struct Args {
    /// Rows of this shard. Default: of all shards.
    #[arg(long, value_name = "N", group = "which", value_parser = parse_shard)]
    shard: Option<Shard>,

    /// Rows of this order.
    #[arg(long, value_name = "ID", group = "which", value_parser = clap::value_parser!(i64).range(0..))]
    order: Option<i64>,

    /// The row of this event. There is no index on events: with a million waiting rows this takes seconds.
    #[arg(long, value_name = "UUID", group = "which")]
    event: Option<Uuid>,

    /// Show at most this many rows.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1_000))]
    limit: i64,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    rows: Vec<Peeked>,
}

#[derive(Debug, Serialize)]
struct Peeked {
    state: &'static str,
    shard: Shard,
    id: i64,
    event_id: EventId,
    return_id: ReturnId,
    seq: i32,
    event_type: String,
    topic: String,
    key: String,
    created_at: String,
    headers: Vec<Header>,
    #[serde(flatten)]
    payload: Payload,
    #[serde(flatten)]
    parked: Option<Parking>,
}

#[derive(Debug, Serialize)]
struct Header {
    name: &'static str,
    value: String,
}

#[derive(Debug, Serialize)]
struct Parking {
    parked_at: String,
    first_error: String,
    attempts: i32,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let (filter, limit) = (args.filter(), args.limit);
    let session = args.session.connect().await?;
    let rows = session.read("peek", move |conn| {
        Box::pin(store::peek(conn, filter, limit))
    });
    let report = Report {
        rows: rows.await?.into_iter().map(Peeked::from).collect(),
    };
    output::report(&report, args.session.json)?;
    // An empty shard is good news; a named event without a row was sent, or never existed.
    Ok(match filter {
        RowFilter::Event(_) if report.rows.is_empty() => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    })
}

impl Args {
    fn filter(&self) -> RowFilter {
        match (self.shard, self.order, self.event) {
            (Some(shard), _, _) => RowFilter::Shard(shard),
            (_, Some(order), _) => RowFilter::Order(OrderId(order)),
            (_, _, Some(event)) => RowFilter::Event(EventId(event)),
            (None, None, None) => RowFilter::All,
        }
    }
}

impl From<PeekedRow> for Peeked {
    fn from(row: PeekedRow) -> Self {
        let headers = headers(&row);
        let parked = row.parked_at.map(|at| Parking {
            parked_at: rfc3339(at),
            first_error: row.first_error.unwrap_or_default(),
            attempts: row.attempts.unwrap_or_default(),
        });
        Self {
            state: if parked.is_some() {
                "parked"
            } else {
                "waiting"
            },
            shard: row.shard,
            id: row.id,
            event_id: row.event_id,
            return_id: row.return_id,
            seq: row.seq,
            event_type: row.event_type,
            topic: row.topic,
            key: row.msg_key,
            created_at: rfc3339(row.created_at),
            headers,
            payload: Payload::of(row.payload, row.payload_bytes),
            parked,
        }
    }
}

fn headers(row: &PeekedRow) -> Vec<Header> {
    let envelope = Envelope {
        event_id: row.event_id,
        event_type: &row.event_type,
        return_id: row.return_id,
        seq: row.seq,
        created_at: row.created_at,
        traceparent: row.traceparent.as_deref(),
        tracestate: row.tracestate.as_deref(),
        epoch: 0,
    };
    let headers = envelope.headers().into_iter();
    headers
        .filter(|(name, _)| *name != header::EPOCH)
        .map(|(name, value)| Header { name, value })
        .collect()
}

impl output::Report for Report {
    fn text(&self) -> String {
        if self.rows.is_empty() {
            return "No waiting or parked rows.".to_owned();
        }
        let rows: Vec<String> = self.rows.iter().map(Peeked::text).collect();
        rows.join("\n\n")
    }
}

impl Peeked {
    fn text(&self) -> String {
        let mut lines = vec![format!(
            "{}  shard {} id {}  return {} seq {}\n  {} -> {} key {}",
            self.state,
            self.shard,
            self.id,
            self.return_id,
            self.seq,
            self.event_type,
            self.topic,
            self.key
        )];
        if let Some(parked) = &self.parked {
            lines.push(format!(
                "  parked since {} after {}: {}",
                parked.parked_at,
                counted(parked.attempts, "attempt"),
                printable(&parked.first_error)
            ));
        }
        let headers = self.headers.iter();
        lines.extend(headers.map(|header| format!("  {}: {}", header.name, header.value)));
        lines.push(format!("  {}", self.payload.line()));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn wide_values_fit() {
        let row = PeekedRow {
            shard: Shard(15),
            id: i64::MAX,
            event_id: EventId(Uuid::now_v7()),
            return_id: ReturnId(i64::MAX),
            seq: i32::MAX,
            event_type: "return.review_required".to_owned(),
            topic: "t".repeat(249),
            msg_key: i64::MAX.to_string(),
            payload: format!("{{\"a\":\"{}\"}}", "ö".repeat(300)).into_bytes(),
            payload_bytes: i64::MAX,
            traceparent: Some(format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16))),
            tracestate: Some("vendor=value,".repeat(30)),
            created_at: datetime!(2026-11-23 12:00 UTC),
            parked_at: Some(datetime!(2026-11-23 12:00 UTC)),
            first_error: Some("larger than the topic's max.message.bytes ".repeat(9)),
            attempts: Some(i32::MAX),
        };
        output::expect_fits(&Report {
            rows: vec![row.into()],
        });
    }
}
