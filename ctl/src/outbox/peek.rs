//! `returnsctl outbox peek`

use std::process::ExitCode;

use clap::ArgGroup;
use serde::Serialize;
use shared::domain::event::{Envelope, header};
use shared::domain::ids::{EventId, OrderId, ReturnId, Shard};
use uuid::Uuid;

use super::parse_shard;
use crate::error::CtlError;
use crate::output;
use crate::session::SessionArgs;
use crate::store::outbox::{self as store, PeekedRow, Which};
use crate::text::{Payload, printable, rfc3339};

const EXAMPLE: &str = "\
Headers are those of the record in Kafka, but for x-outbox-epoch, which the relay adds when it sends.
Payloads are shown up to 16 KiB: as text where they are UTF-8, else in hexadecimal digits.";

/// Show rows that wait in the outbox or are parked, lowest id first, with headers and payload.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
#[command(group(ArgGroup::new("which").required(true)))]
pub(super) struct Args {
    /// Rows of this shard.
    #[arg(long, value_name = "N", group = "which", value_parser = parse_shard)]
    shard: Option<Shard>,

    /// Rows of this order.
    #[arg(long, value_name = "ID", group = "which", value_parser = clap::value_parser!(i64).range(0..))]
    order: Option<i64>,

    /// The row of this event. No index leads to it: with a million rows waiting it takes seconds.
    #[arg(long, value_name = "UUID", group = "which")]
    event: Option<Uuid>,

    /// Most rows to show.
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

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let which = args.which();
    let mut conn = args.session.connect().await?;
    let rows = store::peek(&mut conn, which, args.limit).await?;
    let report = Report {
        rows: rows.into_iter().map(Peeked::from).collect(),
    };
    if args.session.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.text())?;
    }
    // An empty shard is what one hopes for; an event that was named and is not there has been sent, or never was.
    Ok(match which {
        Which::Event(_) if report.rows.is_empty() => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    })
}

impl Args {
    fn which(&self) -> Which {
        match (self.shard, self.order, self.event) {
            (Some(shard), _, _) => Which::Shard(shard),
            (_, Some(order), _) => Which::Order(OrderId(order)),
            (_, _, Some(event)) => Which::Event(EventId(event)),
            (None, None, None) => unreachable!("the group is required"),
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

impl Report {
    fn text(&self) -> String {
        if self.rows.is_empty() {
            return "nothing waits and nothing is parked".to_owned();
        }
        let rows: Vec<String> = self.rows.iter().map(Peeked::text).collect();
        rows.join("\n\n")
    }
}

impl Peeked {
    fn text(&self) -> String {
        let mut lines = vec![format!(
            "{}  shard {} id {}  return {} seq {} {}  -> {} key {}",
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
                "  parked since {} after {} attempts: {}",
                parked.parked_at,
                parked.attempts,
                printable(&parked.first_error)
            ));
        }
        let headers = self.headers.iter();
        lines.extend(headers.map(|header| format!("  {}: {}", header.name, header.value)));
        lines.push(format!("  {}", self.payload.line()));
        lines.join("\n")
    }
}
