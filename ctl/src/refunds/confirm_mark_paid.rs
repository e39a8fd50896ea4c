//! `returnsctl refunds confirm-mark-paid`: the second of two persons. Writes everything.
//!
//! The request is read under the return's row lock, which whoever requests holds too: none supersedes it meanwhile.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::domain::refund::{AttemptState, MarkPaid};
use shared::domain::status::Action;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use super::act::{
    ActArgs, Decision, Held, OrderLock, commit, expect_one, hold, not_now, record, refuse_own,
    write,
};
use super::case::{Case, accepts};
use super::request::Request;
use crate::error::CtlError;
use crate::operator::Operator;
use crate::output;
use crate::session::retried;
use crate::store::actions::Verb;
use crate::store::refunds::last_request;
use crate::store::settle::{self, Closing};

const EXAMPLE: &str = "\
WHAT THIS MEANS: the return is refunded for good, the amount counts against its order, and no payment is made any more.
Look at the evidence yourself first: `returnsctl refunds show RETURN`.

A later attempt that is parked becomes void and is never looked at again: you too state that it did not pay.

You must not be the one who requested it. A request is good for a day, and only for the return as it was then. Both of
you are recorded.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds confirm-mark-paid 456 --request 12";

/// Confirm another person's request: the return becomes refunded without another payment.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The request that you have looked at, as `refunds show` tells its number: not one that has superseded it since.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    request: i64,

    #[command(flatten)]
    act: ActArgs,
}

#[derive(Debug, Serialize)]
struct Confirmed {
    #[serde(flatten)]
    decision: Decision,
    request: i64,
    requested_by: i64,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let (operator, mut conn) = args.act.begin().await?;
    let confirmed = retried(&mut conn, async |conn| confirm(conn, args, &operator).await).await?;
    confirmed.tell(args.act.session.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn confirm(
    conn: &mut MySqlConnection,
    args: &Args,
    operator: &Operator,
) -> Result<Confirmed, CtlError> {
    let id = args.act.return_id;
    let mut tx = conn.begin().await?;
    let mut held = hold(&mut tx, id, OrderLock::Update).await?;
    refuse_own(&held.case, operator)?;
    let (request, paid) = confirmable(&mut tx, &held.case, args.request, operator).await?;
    close(&mut tx, &held, &paid, request.gateway_ref.as_deref()).await?;
    let reason = format!("confirms request {}", request.id);
    let details = details(&held.case, &paid, &request);
    let verb = Verb::ConfirmMarkPaid;
    let recorded = record(&mut tx, verb, operator, id, &reason, details).await?;
    let (topics, action) = (&args.act.topics, Action::MarkPaid);
    let detail = detail(&paid, &request, recorded);
    let applied = write(&mut tx, &mut held, topics, operator, action, detail).await?;
    commit(tx, id).await?;
    Ok(Confirmed {
        decision: Decision {
            action: "confirm-mark-paid",
            return_id: id,
            status: applied.status,
            seq: applied.seq,
            event_id: applied.event_id,
            attempt: request.attempt,
            decided_by: operator.caller.user,
            operator_action: recorded,
        },
        request: request.id,
        requested_by: request.requested_by,
    })
}

/// The request that this operator may confirm now, and what it does.
async fn confirmable<'a>(
    tx: &mut MySqlConnection,
    case: &'a Case,
    wanted: i64,
    operator: &Operator,
) -> Result<(Request, MarkPaid<'a>), CtlError> {
    let id = case.return_id;
    let last = last_request(tx, id).await?;
    let request = last
        .map(Request::read)
        .transpose()?
        .ok_or_else(|| not_now(id, "nobody has requested that it be marked as paid"))?;
    if wanted != request.id {
        let why = format!("the last request is {}, not {wanted}", request.id);
        return Err(not_now(id, &why));
    }
    let paid = case.mark_paid(request.attempt);
    let paid = paid.map_err(|why| not_now(id, &why))?;
    request
        .open(case.version)
        .map_err(|why| not_now(id, &format!("{why}; it has to be requested anew")))?;
    let user = operator.caller.user;
    if request.requested_by == user {
        let why = format!(
            "request {} is your own (user {user}); another person has to confirm it",
            request.id
        );
        return Err(not_now(id, &why));
    }
    accepts(&paid, request.gateway_ref.as_deref()).map_err(|why| not_now(id, &why))?;
    Ok((request, paid))
}

/// Writes the attempts and the order's sum.
async fn close(
    tx: &mut MySqlConnection,
    held: &Held,
    paid: &MarkPaid<'_>,
    gateway_ref: Option<&str>,
) -> Result<(), CtlError> {
    let now = held.locked.now;
    let succeeded = Closing {
        state: AttemptState::Succeeded,
        gateway_ref,
        last_error: None,
    };
    expect_one(settle::close_attempt(tx, paid.by, succeeded, now).await?)?;
    for other in &paid.superfluous {
        let void = Closing {
            state: AttemptState::Void,
            gateway_ref: None,
            last_error: other.last_error.as_deref(),
        };
        expect_one(settle::close_attempt(tx, other, void, now).await?)?;
    }
    expect_one(settle::add_refund(tx, &held.case.order, &paid.by.amount).await?)
}

fn details(case: &Case, paid: &MarkPaid<'_>, request: &Request) -> Value {
    json!({
        "request": request.id,
        "requested_by": request.requested_by,
        "attempt": paid.by.id.number,
        "amount": paid.by.amount.decimal_text(),
        "currency": paid.by.amount.currency,
        "gateway_ref": reference(paid, request),
        "version": case.version,
    })
}

/// The event's actor is who confirmed; who requested stands here.
fn detail(paid: &MarkPaid<'_>, request: &Request, recorded: u64) -> Map<String, Value> {
    Map::from_iter([
        ("attempt".to_owned(), json!(paid.by.id.number)),
        ("gateway_ref".to_owned(), json!(reference(paid, request))),
        ("requested_by".to_owned(), json!(request.requested_by)),
        ("request".to_owned(), json!(request.id)),
        ("operator_action".to_owned(), json!(recorded)),
    ])
}

/// As the attempt's row has it from now on.
fn reference<'a>(paid: &MarkPaid<'a>, request: &'a Request) -> Option<&'a str> {
    let known = paid.by.gateway_ref.as_deref();
    known.or(request.gateway_ref.as_deref())
}

impl Confirmed {
    fn tell(&self, json: bool) -> Result<(), CtlError> {
        if json {
            return output::print_json(self);
        }
        let decision = &self.decision;
        output::print(&format!(
            "return {} is {}: marked as paid by attempt {}, requested by user {} and confirmed by user {}",
            decision.return_id,
            decision.status,
            decision.attempt,
            self.requested_by,
            decision.decided_by
        ))
    }
}
