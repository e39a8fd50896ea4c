//! `returnsctl outbox parked`

use std::process::ExitCode;

use serde::Serialize;
use shared::domain::ids::{EventId, OrderId, ReturnId, Shard};

use crate::error::CtlError;
use crate::layout::{Row, table};
use crate::output;
use crate::session::{READ_DEADLINE, SessionArgs};
use crate::store::outbox::{self as store, ParkedOrder};
use crate::text::{counted, or_dash, printable, span};

const HELP: &str = "\
The relay parks an event that Kafka refused when it was sent alone, or that is larger than its topic allows. Later events \
of the same order are parked behind it, so that they do not overtake it. Every other order flows.

To do: remove the cause (for example, raise the topic's max.message.bytes), then run `returnsctl outbox redrive --order \
ID --by NAME --reason TEXT`. If the event can never be sent: `returnsctl outbox discard --event UUID --by NAME --reason \
TEXT`, then redrive the rows that followed it.";

/// Show the orders with parked rows: the refused event, the reason, and the number of rows behind it.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Only this order.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    order: Option<i64>,

    /// Show at most this many orders, the longest parked first.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    orders: Vec<Order>,
    /// Of the whole table, including orders that are not listed.
    parked_rows: i64,
    parked_orders: i64,
}

#[derive(Debug, Serialize)]
struct Order {
    order: String,
    shard: Shard,
    parked_rows: i64,
    /// Rows that only follow the refused ones.
    followers: i64,
    oldest_parked_secs: f64,
    /// The first refused event; `None` when it was discarded and only followers are left.
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

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let session = args.session.connect().await?;
    let (order, limit) = (args.order.map(OrderId), args.limit);
    let orders = session.read("parked_orders", move |conn| {
        Box::pin(store::parked_orders(conn, order, limit))
    });
    let orders = orders.await?;
    let totals = session.read("parked_totals", |conn| {
        Box::pin(store::parked_totals(conn, READ_DEADLINE))
    });
    let (parked_rows, parked_orders) = totals.await?;
    let report = Report {
        orders: orders.into_iter().map(Order::from).collect(),
        parked_rows,
        parked_orders,
    };
    output::report(&report, args.session.json)?;
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

impl output::Report for Report {
    fn text(&self) -> String {
        if self.orders.is_empty() {
            return "No parked rows.".to_owned();
        }
        let head = [
            "order",
            "shard",
            "parked for",
            "followers",
            "return",
            "seq",
            "type",
        ];
        let rows: Vec<Row<7>> = self.orders.iter().map(Order::row).collect();
        format!(
            "{}\n\n{} of {} parked in total",
            table(head, &rows),
            counted(self.parked_rows, "row"),
            counted(self.parked_orders, "order")
        )
    }
}

impl Order {
    fn row(&self) -> Row<7> {
        let culprit = self.culprit.as_ref();
        let below = match culprit {
            Some(culprit) => vec![
                format!("event {}", culprit.event_id),
                printable(&culprit.first_error),
            ],
            None => {
                vec!["The event that these rows followed was discarded: redrive them.".to_owned()]
            }
        };
        Row {
            cells: [
                self.order.clone(),
                self.shard.to_string(),
                span(self.oldest_parked_secs),
                self.followers.to_string(),
                or_dash(culprit.map(|culprit| culprit.return_id)),
                or_dash(culprit.map(|culprit| culprit.seq)),
                or_dash(culprit.map(|culprit| culprit.event_type.as_str())),
            ],
            below,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_values_fit_and_the_event_is_not_shortened() {
        let event_id = EventId(uuid::Uuid::now_v7());
        let order = |culprit| Order {
            order: "9223372036854775807".to_owned(),
            shard: Shard(15),
            parked_rows: 1_000_000,
            followers: 999_999,
            oldest_parked_secs: 7_000.0,
            culprit,
        };
        let culprit = Culprit {
            event_id,
            id: i64::MAX,
            return_id: ReturnId(i64::MAX),
            seq: i32::MAX,
            event_type: "return.review_required".to_owned(),
            topic: "order.returns.status".to_owned(),
            payload_bytes: i64::MAX,
            attempts: i32::MAX,
            first_error: "the record is larger than the topic's max.message.bytes ".repeat(9),
        };
        let text = output::expect_fits(&Report {
            orders: vec![order(Some(culprit)), order(None)],
            parked_rows: i64::MAX,
            parked_orders: i64::MAX,
        });
        assert!(text.contains(&format!("  event {event_id}\n")), "{text}");
    }
}
