//! `returnsctl outbox parked`

use std::process::ExitCode;

use serde::Serialize;
use shared::domain::ids::{EventId, OrderId, ReturnId, Shard};

use crate::error::CtlError;
use crate::output;
use crate::session::SessionArgs;
use crate::store::outbox::{self as store, ParkedOrder};
use crate::text::{counted, printable, span};

const EXAMPLE: &str = "\
An event is parked when Kafka refused it when it was sent alone, or when it is larger than its topic allows. Later
events of the same order follow it there, so that they do not overtake it; every other order flows.

To do: remove the cause (raise the topic's max.message.bytes, say), then `returnsctl outbox redrive --order ID`. If
the event can never be sent: `returnsctl outbox discard --event UUID`, then redrive what followed it.";

/// Show the orders with parked rows: the event to blame, why, and how many rows wait behind it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// Only this order.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    order: Option<i64>,

    /// Most orders to show, the longest waiting first.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    orders: Vec<Order>,
    /// Of the whole table, also what is not listed.
    parked_rows: i64,
    parked_orders: i64,
}

#[derive(Debug, Serialize)]
struct Order {
    order: String,
    shard: Shard,
    parked_rows: i64,
    /// Rows that only follow the ones that were refused.
    followers: i64,
    oldest_parked_secs: f64,
    /// The first event that was refused; absent when it was discarded and only followers are left.
    culprit: Option<Culprit>,
}

#[derive(Debug, Serialize)]
struct Culprit {
    event_id: EventId,
    id: i64,
    return_id: ReturnId,
    seq: i32,
    event_type: String,
    topic: String,
    payload_bytes: i64,
    attempts: i32,
    first_error: String,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let mut conn = args.session.connect().await?;
    let orders = store::parked_orders(&mut conn, args.order.map(OrderId), args.limit).await?;
    let (parked_rows, parked_orders) = store::parked_totals(&mut conn).await?;
    let report = Report {
        orders: orders.into_iter().map(Order::from).collect(),
        parked_rows,
        parked_orders,
    };
    if args.session.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl From<ParkedOrder> for Order {
    fn from(row: ParkedOrder) -> Self {
        let culprit = (row.refused_rows > 0).then_some(Culprit {
            event_id: row.event_id,
            id: row.id,
            return_id: row.return_id,
            seq: row.seq,
            event_type: row.event_type,
            topic: row.topic,
            payload_bytes: row.payload_bytes,
            attempts: row.attempts,
            first_error: row.first_error,
        });
        Self {
            order: row.msg_key,
            shard: row.shard,
            parked_rows: row.parked_rows,
            followers: row.parked_rows - row.refused_rows,
            oldest_parked_secs: row.oldest_parked_secs,
            culprit,
        }
    }
}

impl Report {
    fn text(&self) -> String {
        if self.orders.is_empty() {
            return "nothing is parked".to_owned();
        }
        let head = [
            "order",
            "shard",
            "parked for",
            "followers",
            "event",
            "return",
            "seq",
            "type",
            "why",
        ];
        let rows: Vec<[String; 9]> = self.orders.iter().map(Order::cells).collect();
        format!(
            "{}\n\n{} of {} parked in all",
            output::table(head, &rows),
            counted(self.parked_rows, "row"),
            counted(self.parked_orders, "order")
        )
    }
}

impl Order {
    fn cells(&self) -> [String; 9] {
        let told =
            |of: fn(&Culprit) -> String| self.culprit.as_ref().map_or_else(|| "-".to_owned(), of);
        let why = self.culprit.as_ref().map_or_else(
            || "what they followed was discarded: redrive".to_owned(),
            |culprit| printable(&culprit.first_error),
        );
        [
            self.order.clone(),
            self.shard.to_string(),
            span(self.oldest_parked_secs),
            self.followers.to_string(),
            told(|culprit| culprit.event_id.to_string()),
            told(|culprit| culprit.return_id.to_string()),
            told(|culprit| culprit.seq.to_string()),
            told(|culprit| culprit.event_type.clone()),
            why,
        ]
    }
}
