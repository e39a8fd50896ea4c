//! `returnsctl refunds show`

mod commands;

use std::process::ExitCode;

use serde::Serialize;
use shared::domain::ids::ReturnId;
use shared::domain::refund::{Attempt, AttemptState, ParkReason, ProviderKey, RefundState};
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;
use time::OffsetDateTime;

use self::commands::{CommandView, commands};
use super::answer::answer_note;
use super::overdue::{note, overdue_secs};
use super::refund::Refund;
use super::request::MarkRequest;
use crate::error::CtlError;
use crate::history::{EventView, events_text};
use crate::output;
use crate::return_head::ReturnHead;
use crate::return_id::{no_such_return, parse_return};
use crate::session::SessionArgs;
use crate::store::refunds::{self as store, Lock, RequestRow};
use crate::store::returns::{self, Event, ReturnRow};
use crate::text::{counted, or_dash, printable, rfc3339, to_second};

const HELP: &str = "\
`version` is the seq of the last event. The commands at the end are those that the states allow now. They are complete \
but for your own words in capital letters. Your role, and whether it is your own return, are checked when you run one.";

/// Show a return with its order, its attempts, its history, and what a person may do now.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
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
    order: OrderMoney,
    attempts: Vec<AttemptView>,
    events: Vec<EventView>,
    /// The last request, open or not.
    mark_request: Option<RequestView>,
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
    /// Whether a consumer works on it now.
    owned: bool,
    first_sent_at: Option<String>,
    next_check_at: String,
    checks: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    overdue_secs: Option<f64>,
    gateway: Option<String>,
    gateway_ref: Option<String>,
    last_error: Option<String>,
    /// How often the provider refused it, or answered as none of its contract.
    refusals: i32,
    provider_answer: Option<String>,
    /// Why it is parked, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    parked_because: Option<&'static str>,
    created_at: String,
    updated_at: String,
}

#[derive(Debug, Serialize)]
struct RequestView {
    #[serde(flatten)]
    request: MarkRequest,
    open: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
}

/// The rows of a return, from one snapshot.
struct Rows {
    row: ReturnRow,
    refund: Refund,
    events: Vec<Event>,
    request: Option<RequestRow>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let id = args.return_id;
    let session = args.session.connect().await?;
    let rows = session.read("read_return", move |conn| Box::pin(Rows::read(conn, id)));
    let rows = rows.await?.ok_or_else(|| no_such_return(id))?;
    output::report(&Report::of(rows)?, args.session.json)?;
    Ok(ExitCode::SUCCESS)
}

impl Rows {
    async fn read(conn: &mut MySqlConnection, id: ReturnId) -> sqlx::Result<Option<Self>> {
        store::snapshot_next(conn).await?;
        let mut tx = conn.begin().await?;
        let Some(row) = returns::read_return(&mut tx, id).await? else {
            return Ok(None);
        };
        let Some(order) = store::read_order(&mut tx, row.order_id, Lock::None).await? else {
            return Ok(None);
        };
        let refund = Refund {
            return_id: id,
            customer_id: row.customer_id,
            filed_by: row.filed_by,
            version: row.version,
            amount: row.refund_amount.clone(),
            order,
            state: RefundState {
                status: row.status,
                attempts: store::read_attempts(&mut tx, id).await?,
            },
        };
        let events = returns::read_events(&mut tx, id).await?;
        let request = store::last_request(&mut tx, id).await?;
        tx.rollback().await?;
        Ok(Some(Self {
            row,
            refund,
            events,
            request,
        }))
    }
}

impl Report {
    fn of(rows: Rows) -> Result<Self, CtlError> {
        let Rows {
            row,
            refund,
            events,
            request,
        } = rows;
        let request = request.map(MarkRequest::read).transpose()?;
        let commands = commands(&refund, request.as_ref(), row.now);
        Ok(Self {
            head: ReturnHead::of(refund.return_id, &row),
            order: OrderMoney {
                total: refund.order.total.decimal_text(),
                refunded_amount: refund.order.refunded().decimal_text(),
                currency: refund.order.total.currency.to_string(),
            },
            attempts: refund
                .state
                .attempts
                .into_iter()
                .map(|attempt| AttemptView::of(attempt, row.now))
                .collect(),
            events: events.into_iter().map(EventView::from).collect(),
            mark_request: request.map(|request| RequestView::of(request, row.version)),
            commands,
        })
    }
}

impl AttemptView {
    fn of(attempt: Attempt, now: OffsetDateTime) -> Self {
        Self {
            overdue_secs: overdue_secs(&attempt, now),
            parked_because: parked_because(&attempt),
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
            refusals: attempt.refusals,
            provider_answer: attempt.provider_answer,
            created_at: rfc3339(attempt.created_at),
            updated_at: rfc3339(attempt.updated_at),
        }
    }
}

impl RequestView {
    fn of(request: MarkRequest, version: i32) -> Self {
        let open = request.open(version);
        Self {
            request,
            open: open.is_ok(),
            why_not: open.err(),
        }
    }
}

impl output::Report for Report {
    fn text(&self) -> String {
        let mut parts = vec![
            format!(
                "{}\n\
                 refund {} {}; order total {total} {currency}, of which {refunded} {currency} is refunded\n\
                 filed {}, changed {}",
                self.head.title(),
                self.head.refund_amount,
                self.head.currency,
                self.head.created_at,
                self.head.updated_at,
                total = self.order.total,
                currency = self.order.currency,
                refunded = self.order.refunded_amount,
            ),
            self.attempts_text(),
            events_text(&self.events),
        ];
        parts.extend(self.mark_request.as_ref().map(RequestView::text));
        parts.push(self.commands_text());
        parts.join("\n\n")
    }
}

impl Report {
    fn attempts_text(&self) -> String {
        if self.attempts.is_empty() {
            return "No attempts.".to_owned();
        }
        let attempts: Vec<String> = self.attempts.iter().map(AttemptView::text).collect();
        attempts.join("\n")
    }

    fn commands_text(&self) -> String {
        let possible: Vec<String> = self
            .commands
            .iter()
            .filter_map(CommandView::to_paste)
            .collect();
        if possible.is_empty() {
            return "No command is possible now.".to_owned();
        }
        format!("possible now:\n{}", possible.join("\n"))
    }
}

impl AttemptView {
    fn text(&self) -> String {
        let shown = |text: &Option<String>| or_dash(text.as_deref().map(printable));
        let overdue = self.overdue_secs;
        let notes = [
            self.parked_because.map(str::to_owned),
            answer_note(self.refusals, self.provider_answer.as_deref()),
            overdue.map(|secs| note(secs, self.gateway.as_deref())),
        ];
        let notes: String = notes
            .into_iter()
            .flatten()
            .map(|note| format!("\n  {note}"))
            .collect();
        format!(
            "attempt {}: {}, {} {}\n  key {}\n  gateway {}, reference {}\n  made {}, first sent {}\n  \
             last error {}; {}, next check {}{}{}",
            self.attempt,
            self.state.as_str(),
            self.amount,
            self.currency,
            self.idempotency_key,
            shown(&self.gateway),
            shown(&self.gateway_ref),
            to_second(&self.created_at),
            or_dash(self.first_sent_at.as_deref().map(to_second)),
            shown(&self.last_error),
            counted(self.checks, "check"),
            to_second(&self.next_check_at),
            if self.owned { ", owned" } else { "" },
            notes,
        )
    }
}

fn parked_because(attempt: &Attempt) -> Option<&'static str> {
    let reason = attempt.last_error.as_deref()?.parse::<ParkReason>().ok()?;
    (attempt.state == AttemptState::Parked).then(|| reason.explained())
}

impl RequestView {
    fn text(&self) -> String {
        let request = &self.request;
        let state = match &self.why_not {
            None => "open".to_owned(),
            Some(why) => format!("no longer open: {why}"),
        };
        format!(
            "request {}: attempt {} was {}, by user {}, {state}\n  reference {}\n  evidence: {}",
            request.id,
            request.attempt,
            request.mark.participle(),
            request.requested_by,
            or_dash(request.gateway_ref.as_ref()),
            printable(&request.evidence)
        )
    }
}

#[cfg(test)]
mod tests;
