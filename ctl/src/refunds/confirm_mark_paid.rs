//! `returnsctl refunds confirm-mark-paid`: the second of two persons. This command writes all changes.
//!
//! The request is read under the lock of the return's row. A new request takes the same lock, so none replaces this one
//! meanwhile.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::domain::refund::{AttemptState, MarkPaid};
use shared::domain::status::Action;
use shared::domain::transition::Locked;
use sqlx::mysql::MySqlConnection;

use super::decision::{
    Decided, Decision, DecisionArgs, Outcome, close_attempt, expect_one, not_now,
};
use super::refund::{Refund, accepts};
use super::request::MarkPaidRequest;
use crate::error::CtlError;
use crate::operator::Operator;
use crate::output;
use crate::store::actions::Verb;
use crate::store::refunds::{Lock, last_request};
use crate::store::settle::{self, Closing};

const HELP: &str = "\
WHAT THIS MEANS: the return is refunded for good, the amount counts against its order, and no further payment is made. \
Check the evidence yourself first: `returnsctl refunds show RETURN`.

A later attempt that is parked becomes void and is never checked again: you too state that it did not pay.

You cannot confirm your own request. A request is valid for a day, and only for the return as it was then. Both persons \
are recorded.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds confirm-mark-paid 456 \\
    --request 12";

/// Confirm another person's request: the return becomes refunded without another payment.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The request that you have checked, with its number from `refunds show`. If a later request has replaced it, nothing
    /// is confirmed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    request: i64,

    #[command(flatten)]
    decision: DecisionArgs,
}

#[derive(Debug, Serialize)]
struct Confirmed {
    #[serde(flatten)]
    decision: Decided,
    request: i64,
    requested_by: i64,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let request = args.request;
    let confirmed = args
        .decision
        .decide("confirm_mark_paid", Lock::Update, move |decision| {
            Box::pin(confirm(decision, request))
        });
    output::report(&confirmed.await?, args.decision.session.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn confirm(decision: Decision<'_>, request: i64) -> Result<Confirmed, CtlError> {
    let (refund, operator) = (&decision.refund, decision.operator);
    let (request, paid) = confirmable(decision.tx, refund, request, operator).await?;
    close(
        decision.tx,
        refund,
        &paid,
        request.gateway_ref.as_deref(),
        &decision.locked,
    )
    .await?;
    let outcome = Outcome {
        command: "confirm-mark-paid",
        verb: Verb::ConfirmMarkPaid,
        action: Action::MarkPaid,
        reason: format!("confirms request {}", request.id),
        attempt: request.attempt,
        details: details(refund, &paid, &request),
        event_data: event_data(&paid, &request),
    };
    Ok(Confirmed {
        decision: decision.write(outcome).await?,
        request: request.id,
        requested_by: request.requested_by,
    })
}

/// The request that this operator may confirm now, and what it does.
async fn confirmable<'a>(
    tx: &mut MySqlConnection,
    refund: &'a Refund,
    wanted: i64,
    operator: &Operator,
) -> Result<(MarkPaidRequest, MarkPaid<'a>), CtlError> {
    let refused = |why: String| not_now(refund.return_id, why);
    let last = last_request(tx, refund.return_id).await?;
    let request = last
        .map(MarkPaidRequest::read)
        .transpose()?
        .ok_or_else(|| refused("nobody has requested that it be marked as paid".to_owned()))?;
    if wanted != request.id {
        let last = request.id;
        return Err(refused(format!("the last request is {last}, not {wanted}")));
    }
    let paid = refund.mark_paid(request.attempt).map_err(refused)?;
    request
        .open(refund.version)
        .map_err(|why| refused(format!("{why}; request it again")))?;
    let user = operator.caller.user;
    if request.requested_by == user {
        return Err(refused(format!(
            "request {} is your own (user {user}); another person has to confirm it",
            request.id
        )));
    }
    accepts(&paid, request.gateway_ref.as_deref()).map_err(refused)?;
    Ok((request, paid))
}

/// Writes the attempts and the order's sum.
async fn close(
    tx: &mut MySqlConnection,
    refund: &Refund,
    paid: &MarkPaid<'_>,
    gateway_ref: Option<&str>,
    locked: &Locked,
) -> Result<(), CtlError> {
    let succeeded = Closing {
        state: AttemptState::Succeeded,
        gateway_ref,
        last_error: None,
    };
    close_attempt(tx, paid.by, succeeded, locked).await?;
    for other in &paid.superfluous {
        let void = Closing {
            state: AttemptState::Void,
            gateway_ref: None,
            last_error: other.last_error.as_deref(),
        };
        close_attempt(tx, other, void, locked).await?;
    }
    expect_one(settle::add_refund(tx, &refund.order, &paid.by.amount).await?)
}

fn details(refund: &Refund, paid: &MarkPaid<'_>, request: &MarkPaidRequest) -> Value {
    json!({
        "request": request.id,
        "requested_by": request.requested_by,
        "attempt": paid.by.id.number,
        "amount": paid.by.amount.decimal_text(),
        "currency": paid.by.amount.currency,
        "gateway_ref": reference(paid, request),
        "version": refund.version,
    })
}

/// The event's actor is the person who confirmed; the data has the person who requested.
fn event_data(paid: &MarkPaid<'_>, request: &MarkPaidRequest) -> Map<String, Value> {
    Map::from_iter([
        ("gateway_ref".to_owned(), json!(reference(paid, request))),
        ("requested_by".to_owned(), json!(request.requested_by)),
        ("request".to_owned(), json!(request.id)),
    ])
}

/// The gateway's reference in the attempt's row from now on.
fn reference<'a>(paid: &MarkPaid<'a>, request: &'a MarkPaidRequest) -> Option<&'a str> {
    let known = paid.by.gateway_ref.as_deref();
    known.or(request.gateway_ref.as_deref())
}

impl output::Report for Confirmed {
    fn text(&self) -> String {
        let decision = &self.decision;
        format!(
            "Return {} is {}: marked as paid by attempt {}, requested by user {} and confirmed by user {}.",
            decision.return_id,
            decision.status,
            decision.attempt,
            self.requested_by,
            decision.decided_by
        )
    }
}
