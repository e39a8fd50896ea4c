//! `returnsctl returns list`

use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use shared::domain::status::Status;
use strum::IntoEnumIterator;

use crate::error::CtlError;
use crate::layout::{Row, table};
use crate::output;
use crate::return_id::{no_such_return, parse_return};
use crate::session::SessionArgs;
use crate::store::returns::{
    Listed, ReturnFilter, list_returns, list_stuck_returns, time_of_return,
};
use crate::text::{rfc3339, span};

const HELP: &str = "\
The oldest come first. `returnsctl returns show RETURN` shows the history of one.

--stuck lists those that a program should have moved: initiated without a review, or approved, and unchanged for five \
minutes; refund_pending without a parked attempt, and unchanged for an hour. What waits for a person is not stuck: see \
--in-review, and `returnsctl refunds list`.";

/// List returns with their state and the time for which they have not changed.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Only returns in this state.
    #[arg(long, value_name = "S", value_parser = status_parser())]
    status: Option<Status>,

    /// Only returns that wait for an admin's approval.
    #[arg(long, conflicts_with_all = ["status", "stuck"])]
    in_review: bool,

    /// Only returns that a program should have moved; those that have waited longest first.
    #[arg(long, conflicts_with_all = ["status", "order", "customer", "after"])]
    stuck: bool,

    /// Only returns of this order.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    order: Option<i64>,

    /// Only returns of this customer.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    customer: Option<i64>,

    /// Show at most this many returns.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,

    /// Continue after this return, the last one of the page before.
    #[arg(long, value_name = "RETURN", value_parser = parse_return)]
    after: Option<ReturnId>,

    #[command(flatten)]
    session: SessionArgs,
}

fn status_parser() -> impl TypedValueParser<Value = Status> {
    let names = PossibleValuesParser::new(Status::iter().map(Status::as_str));
    names.try_map(|name| name.parse::<Status>())
}

#[derive(Debug, Serialize)]
struct Report {
    returns: Vec<Line>,
    /// The value of `--after` for the next page; `None` on the last page, and with --stuck.
    next_after: Option<ReturnId>,
}

#[derive(Debug, Serialize)]
struct Line {
    return_id: ReturnId,
    order_id: OrderId,
    customer_id: CustomerId,
    status: Status,
    /// It waits for an admin's approval.
    in_review: bool,
    version: i32,
    refund_amount: String,
    currency: String,
    created_at: String,
    updated_at: String,
    unchanged_secs: f64,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let session = args.session.connect().await?;
    let (limit, stuck) = (args.limit, args.stuck);
    let after = match args.after {
        Some(id) => {
            let time = session.read("time_of_return", move |conn| {
                Box::pin(time_of_return(conn, id))
            });
            let time = time.await?.ok_or_else(|| no_such_return(id))?;
            Some((time, id))
        }
        None => None,
    };
    let filter = ReturnFilter {
        status: args.status,
        in_review: args.in_review,
        order: args.order.map(OrderId),
        customer: args.customer.map(CustomerId),
        after,
        limit,
    };
    let listed = session.read("list_returns", move |conn| {
        Box::pin(async move {
            if stuck {
                list_stuck_returns(conn, limit).await
            } else {
                list_returns(conn, &filter).await
            }
        })
    });
    let report = Report::of(listed.await?, limit, stuck);
    output::report(&report, args.session.json)?;
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn of(listed: Vec<Listed>, limit: i64, stuck: bool) -> Self {
        let full = !stuck && i64::try_from(listed.len()) == Ok(limit);
        Self {
            next_after: listed.last().map(|last| last.id).filter(|_| full),
            returns: listed.into_iter().map(Line::from).collect(),
        }
    }
}

impl From<Listed> for Line {
    fn from(row: Listed) -> Self {
        Self {
            return_id: row.id,
            order_id: row.order_id,
            customer_id: row.customer_id,
            status: row.status,
            in_review: row.status == Status::Initiated && row.review_required,
            version: row.version,
            refund_amount: row.refund_amount.decimal_text(),
            currency: row.refund_amount.currency.to_string(),
            created_at: rfc3339(row.created_at),
            updated_at: rfc3339(row.updated_at),
            unchanged_secs: row.unchanged_secs,
        }
    }
}

impl output::Report for Report {
    fn text(&self) -> String {
        if self.returns.is_empty() {
            return "No returns.".to_owned();
        }
        let head = [
            "return",
            "order",
            "customer",
            "status",
            "refund",
            "unchanged",
        ];
        let rows: Vec<Row<6>> = self.returns.iter().map(Line::row).collect();
        let mut text = table(head, &rows);
        if let Some(last) = self.next_after {
            text.push_str(&format!("\n\nThere may be more: --after {last}"));
        }
        text
    }
}

impl Line {
    fn row(&self) -> Row<6> {
        let review = if self.in_review { ", in review" } else { "" };
        Row::from([
            self.return_id.to_string(),
            self.order_id.to_string(),
            self.customer_id.to_string(),
            format!("{}{review}", self.status),
            format!("{} {}", self.refund_amount, self.currency),
            span(self.unchanged_secs),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_values_fit() {
        let line = Line {
            return_id: ReturnId(i64::MAX),
            order_id: OrderId(i64::MAX),
            customer_id: CustomerId(i64::MAX),
            status: Status::Initiated,
            in_review: true,
            version: i32::MAX,
            refund_amount: "999999999999.9999".to_owned(),
            currency: "EUR".to_owned(),
            created_at: "2026-11-23T02:13:20.123456Z".to_owned(),
            updated_at: "2026-11-23T02:13:20.123456Z".to_owned(),
            unchanged_secs: 7_000.0,
        };
        output::expect_fits(&Report {
            returns: vec![line],
            next_after: Some(ReturnId(i64::MAX)),
        });
    }
}
