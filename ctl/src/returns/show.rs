//! `returnsctl returns show`

use std::process::ExitCode;

use serde::Serialize;
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use shared::domain::status::Status;

use crate::error::CtlError;
use crate::history::{EventView, events_text};
use crate::output;
use crate::return_id::{no_such_return, parse_return};
use crate::session::SessionArgs;
use crate::store::returns::{ReturnRow, read_events, read_return};
use crate::text::{or_dash, printable, rfc3339};

/// Show a return with its reason and its history. `returnsctl refunds show RETURN` shows its refund.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The return's id.
    #[arg(value_name = "RETURN", value_parser = parse_return)]
    return_id: ReturnId,

    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    return_id: ReturnId,
    order_id: OrderId,
    customer_id: CustomerId,
    /// The admin who filed it for the customer.
    filed_by: Option<i64>,
    status: Status,
    version: i32,
    review_required: bool,
    reason: String,
    reason_code: Option<String>,
    refund_amount: String,
    currency: String,
    created_at: String,
    updated_at: String,
    events: Vec<EventView>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let id = args.return_id;
    let session = args.session.connect().await?;
    let found = session.read("show_return", move |conn| {
        Box::pin(async move {
            let row = read_return(conn, id).await?;
            Ok((row, read_events(conn, id).await?))
        })
    });
    let (row, events) = found.await?;
    let row = row.ok_or_else(|| no_such_return(id))?;
    let events = events.into_iter().map(EventView::from).collect();
    output::report(&Report::of(id, row, events), args.session.json)?;
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn of(return_id: ReturnId, row: ReturnRow, events: Vec<EventView>) -> Self {
        Self {
            return_id,
            order_id: row.order_id,
            customer_id: row.customer_id,
            filed_by: row.filed_by,
            status: row.status,
            version: row.version,
            review_required: row.review_required,
            reason: row.reason,
            reason_code: row.reason_code,
            refund_amount: row.refund_amount.decimal_text(),
            currency: row.refund_amount.currency.to_string(),
            created_at: rfc3339(row.created_at),
            updated_at: rfc3339(row.updated_at),
            events,
        }
    }
}

impl output::Report for Report {
    fn text(&self) -> String {
        let review = if self.review_required {
            ", reviewed"
        } else {
            ""
        };
        let filed_by = self.filed_by.map(|admin| format!(" by admin {admin}"));
        format!(
            "return {id} of order {}, customer {}: {}, version {}{review}\n\
             refund {} {}\nfiled {}{}, changed {}\nreason code {}; reason: {}\n\n{}\n\n\
             its refund: returnsctl refunds show {id}",
            self.order_id,
            self.customer_id,
            self.status,
            self.version,
            self.refund_amount,
            self.currency,
            self.created_at,
            filed_by.unwrap_or_default(),
            self.updated_at,
            or_dash(self.reason_code.as_deref().map(printable)),
            or_dash(Some(printable(&self.reason)).filter(|reason| !reason.is_empty())),
            events_text(&self.events),
            id = self.return_id,
        )
    }
}
