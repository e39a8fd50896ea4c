//! `returnsctl refunds mark-not-paid`

use std::process::ExitCode;

use clap::value_parser;
use serde_json::{Map, json};
use shared::domain::refund::AttemptState;
use shared::domain::status::Action;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use super::act::{
    ActArgs, Decision, OrderLock, commit, expect_one, hold, not_now, record, refuse_own, write,
};
use crate::error::CtlError;
use crate::operator::{Operator, parse_reason};
use crate::output;
use crate::session::retried;
use crate::store::actions::Verb;
use crate::store::settle::{self, Closing};

const EXAMPLE: &str = "\
WHAT THIS MEANS: the attempt counts as declined and the return becomes refund_failed. No money moves by this; a retry
may follow, and pays. If the provider did pay the attempt after all, that retry finds it, as long as the provider still
tells: look there first, by the attempt's idempotency key.

Refused for an attempt of which the provider has said that it paid (paid_more_than_order_total, paid_twice,
several_found): such a return is marked as paid.

Running it twice is harmless: it is about the attempt that you name, and the second run changes nothing.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds mark-not-paid 456 --attempt 1 \\
    --evidence 'INC-7: provider: no such payment'";

/// State that a parked attempt paid nothing; the return becomes refund_failed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The parked attempt, as `refunds show` tells its number: the last one.
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(1..))]
    attempt: i32,

    /// How you know: the provider's answer with its reference, a ticket, a statement.
    #[arg(long, value_name = "NOTE", value_parser = parse_reason)]
    evidence: String,

    #[command(flatten)]
    act: ActArgs,
}

/// What the attempt's `last_error` says from now on.
const MARKED: &str = "marked_not_paid";

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let (operator, mut conn) = args.act.begin().await?;
    let decision = retried(&mut conn, async |conn| mark(conn, args, &operator).await).await?;
    if args.act.session.json {
        output::print_json(&decision)?;
    } else {
        output::print(&format!(
            "return {} is {}: attempt {} counts as declined; `returnsctl refunds retry {0} --attempt {2} --reason …` has \
             another one made",
            decision.return_id, decision.status, decision.attempt
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn mark(
    conn: &mut MySqlConnection,
    args: &Args,
    operator: &Operator,
) -> Result<Decision, CtlError> {
    let id = args.act.return_id;
    let mut tx = conn.begin().await?;
    let mut held = hold(&mut tx, id, OrderLock::None).await?;
    refuse_own(&held.case, operator)?;
    let attempt = held.case.mark_not_paid(args.attempt);
    let attempt = attempt.map_err(|why| not_now(id, &why))?;
    let number = attempt.id.number;
    let closing = Closing {
        state: AttemptState::Declined,
        gateway_ref: None,
        last_error: Some(MARKED),
    };
    expect_one(settle::close_attempt(&mut tx, attempt, closing, held.locked.now).await?)?;
    let details = json!({
        "attempt": number,
        "version": held.case.version,
        "was": attempt.last_error,
        "gateway_ref": attempt.gateway_ref,
    });
    let verb = Verb::MarkNotPaid;
    let recorded = record(&mut tx, verb, operator, id, &args.evidence, details).await?;
    let detail = Map::from_iter([
        ("attempt".to_owned(), json!(number)),
        ("operator_action".to_owned(), json!(recorded)),
    ]);
    let applied = write(
        &mut tx,
        &mut held,
        &args.act.topics,
        operator,
        Action::MarkNotPaid,
        detail,
    )
    .await?;
    commit(tx, id).await?;
    Ok(Decision {
        action: "mark-not-paid",
        return_id: id,
        status: applied.status,
        seq: applied.seq,
        event_id: applied.event_id,
        attempt: number,
        decided_by: operator.caller.user,
        operator_action: recorded,
    })
}
