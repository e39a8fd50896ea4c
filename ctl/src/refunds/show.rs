//! `returnsctl refunds show`

mod commands;

use std::process::ExitCode;

use serde::Serialize;
use shared::domain::ids::{CustomerId, EventId, OrderId, ReturnId};
use shared::domain::refund::{Attempt, AttemptState, ProviderKey, RefundState};
use shared::domain::status::Status;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use self::commands::{CommandView, commands};
use super::case::Case;
use super::request::Request;
use super::{no_such_return, parse_return};
use crate::error::CtlError;
use crate::output;
use crate::session::SessionArgs;
use crate::store::refunds::{self as store, Event};
use crate::text::{or_dash, printable, rfc3339};

const EXAMPLE: &str = "\
`version` is the seq of the last event. The commands at the end are what the states allow at this moment, complete but
for your own words in capital letters; your role, and whether it is your own return, are judged when you run one.";

/// Show a return with its order, every attempt to pay it, its history, and what a person may do now.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
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
    status: Status,
    version: i32,
    refund_amount: String,
    currency: String,
    created_at: String,
    updated_at: String,
    order: OrderMoney,
    attempts: Vec<AttemptView>,
    events: Vec<EventView>,
    /// The last one there was.
    mark_paid_request: Option<RequestView>,
    commands: Vec<CommandView>,
}

#[derive(Debug, Serialize)]
struct OrderMoney {
    total: String,
    refunded_amount: String,
    currency: String,
}

#[derive(Debug, Serialize)]
struct AttemptView {
    attempt: i32,
    state: AttemptState,
    idempotency_key: ProviderKey,
    amount: String,
    currency: String,
    /// Whether a consumer owns it now.
    owned: bool,
    first_sent_at: Option<String>,
    next_check_at: String,
    checks: i32,
    gateway: Option<String>,
    gateway_ref: Option<String>,
    last_error: Option<String>,
    created_at: String,
    updated_at: String,
}

#[derive(Debug, Serialize)]
struct EventView {
    seq: i32,
    event_type: String,
    event_id: EventId,
    actor: String,
    at: String,
}

#[derive(Debug, Serialize)]
struct RequestView {
    #[serde(flatten)]
    request: Request,
    open: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let mut conn = args.session.connect().await?;
    let report = Report::read(&mut conn, args.return_id).await?;
    if args.session.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Report {
    async fn read(conn: &mut MySqlConnection, id: ReturnId) -> Result<Self, CtlError> {
        store::snapshot_next(conn).await?;
        let mut tx = conn.begin().await?;
        let row = store::read_return(&mut tx, id)
            .await?
            .ok_or_else(|| no_such_return(id))?;
        let order = store::read_order(&mut tx, row.order_id)
            .await?
            .ok_or_else(|| no_such_return(id))?;
        let attempts = store::read_attempts(&mut tx, id).await?;
        let events = store::read_events(&mut tx, id).await?;
        let request = store::last_request(&mut tx, id).await?;
        tx.rollback().await?;

        let case = Case {
            return_id: id,
            customer_id: row.customer_id,
            version: row.version,
            refund_amount: row.refund_amount.clone(),
            order,
            refund: RefundState {
                status: row.status,
                attempts,
            },
        };
        let request = request.map(Request::read).transpose()?;
        let commands = commands(&case, request.as_ref());
        let version = row.version;
        Ok(Self {
            return_id: id,
            order_id: row.order_id,
            customer_id: row.customer_id,
            status: row.status,
            version,
            refund_amount: row.refund_amount.decimal_text(),
            currency: row.refund_amount.currency.to_string(),
            created_at: rfc3339(row.created_at),
            updated_at: rfc3339(row.updated_at),
            order: OrderMoney {
                total: case.order.total.decimal_text(),
                refunded_amount: case.order.refunded_amount.decimal_text(),
                currency: case.order.total.currency.to_string(),
            },
            attempts: case
                .refund
                .attempts
                .into_iter()
                .map(AttemptView::from)
                .collect(),
            events: events.into_iter().map(EventView::from).collect(),
            mark_paid_request: request.map(|request| RequestView::of(request, version)),
            commands,
        })
    }
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        Self {
            attempt: attempt.id.number,
            state: attempt.state,
            amount: attempt.amount.decimal_text(),
            currency: attempt.amount.currency.to_string(),
            idempotency_key: attempt.key,
            owned: attempt.owner.is_some(),
            first_sent_at: attempt.first_sent_at.map(rfc3339),
            next_check_at: rfc3339(attempt.next_check_at),
            checks: attempt.checks,
            gateway: attempt.gateway,
            gateway_ref: attempt.gateway_ref,
            last_error: attempt.last_error,
            created_at: rfc3339(attempt.created_at),
            updated_at: rfc3339(attempt.updated_at),
        }
    }
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            seq: event.seq,
            event_type: event.event_type,
            event_id: event.event_id,
            actor: format!("{}:{}", event.actor_type, event.actor_id),
            at: rfc3339(event.created_at),
        }
    }
}

impl RequestView {
    fn of(request: Request, version: i32) -> Self {
        let open = request.open(version);
        Self {
            request,
            open: open.is_ok(),
            why_not: open.err(),
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut parts = vec![
            format!(
                "return {} of order {}, customer {}: {}, version {}\n\
                 to pay back {} {}; the order's total is {total} {currency}, of which {paid_back} {currency} was paid \
                 back\nfiled {}, changed {}",
                self.return_id,
                self.order_id,
                self.customer_id,
                self.status,
                self.version,
                self.refund_amount,
                self.currency,
                self.created_at,
                self.updated_at,
                total = self.order.total,
                currency = self.order.currency,
                paid_back = self.order.refunded_amount,
            ),
            self.attempts_text(),
            self.events_text(),
        ];
        parts.extend(self.mark_paid_request.as_ref().map(RequestView::text));
        parts.push(self.commands_text());
        parts.join("\n\n")
    }

    fn attempts_text(&self) -> String {
        if self.attempts.is_empty() {
            return "no attempt was made to pay it".to_owned();
        }
        let attempts: Vec<String> = self.attempts.iter().map(AttemptView::text).collect();
        attempts.join("\n")
    }

    fn events_text(&self) -> String {
        let cells = |event: &EventView| {
            [
                event.seq.to_string(),
                event.event_type.clone(),
                event.actor.clone(),
                event.at.clone(),
            ]
        };
        let rows: Vec<[String; 4]> = self.events.iter().map(cells).collect();
        output::table(["seq", "event", "by", "at"], &rows)
    }

    fn commands_text(&self) -> String {
        let possible: Vec<String> = self
            .commands
            .iter()
            .filter_map(|command| Some(format!("  {}", command.line.as_ref()?)))
            .collect();
        if possible.is_empty() {
            return "nothing may be done by a person now".to_owned();
        }
        format!("may be done now:\n{}", possible.join("\n"))
    }
}

impl AttemptView {
    fn text(&self) -> String {
        let shown = |text: &Option<String>| or_dash(text.as_deref().map(printable));
        format!(
            "attempt {} {}: {} {}, key {}\n  gateway {}, reference {}, last error {}{}\n  \
             made {}, first sent {}, {} checks, next {}",
            self.attempt,
            self.state.as_str(),
            self.amount,
            self.currency,
            self.idempotency_key,
            shown(&self.gateway),
            shown(&self.gateway_ref),
            shown(&self.last_error),
            if self.owned { ", owned" } else { "" },
            self.created_at,
            or_dash(self.first_sent_at.as_ref()),
            self.checks,
            self.next_check_at
        )
    }
}

impl RequestView {
    fn text(&self) -> String {
        let request = &self.request;
        let state = match &self.why_not {
            None => "open".to_owned(),
            Some(why) => format!("spent: {why}"),
        };
        format!(
            "request {} to mark it as paid by attempt {}, by user {}, {state}\n  reference {}, evidence: {}",
            request.id,
            request.attempt,
            request.requested_by,
            or_dash(request.gateway_ref.as_ref()),
            printable(&request.evidence)
        )
    }
}
