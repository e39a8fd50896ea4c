//! `returnsctl returns show`

use std::process::ExitCode;

use serde::Serialize;
use shared::domain::ids::ReturnId;

use crate::error::CtlError;
use crate::history::{EventView, events_text};
use crate::output;
use crate::return_head::ReturnHead;
use crate::return_id::{no_such_return, parse_return};
use crate::session::SessionArgs;
use crate::store::returns::{ReturnRow, read_events, read_return};
use crate::text::{or_dash, printable};

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
    #[serde(flatten)]
    head: ReturnHead,
    /// The admin who filed it for the customer.
    filed_by: Option<i64>,
    review_required: bool,
    reason: String,
    reason_code: Option<String>,
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
            head: ReturnHead::of(return_id, &row),
            filed_by: row.filed_by,
            review_required: row.review_required,
            reason: row.reason,
            reason_code: row.reason_code,
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
            "{}{review}\n\
             refund {} {}\nfiled {}{}, changed {}\nreason code {}; reason: {}\n\n{}\n\n\
             its refund: returnsctl refunds show {id}",
            self.head.title(),
            self.head.refund_amount,
            self.head.currency,
            self.head.created_at,
            filed_by.unwrap_or_default(),
            self.head.updated_at,
            or_dash(self.reason_code.as_deref().map(printable)),
            or_dash(Some(printable(&self.reason)).filter(|reason| !reason.is_empty())),
            events_text(&self.events),
            id = self.head.return_id,
        )
    }
}
