//! `returnsctl refunds retry`

use std::process::ExitCode;

use clap::value_parser;
use serde::Serialize;
use serde_json::{Map, json};
use shared::domain::refund::ProviderKey;
use shared::domain::status::Action;
use shared::domain::transition;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use super::act::{ActArgs, Decision, OrderLock, commit, hold, not_now, record, refuse_own, write};
use super::no_such_return;
use crate::error::CtlError;
use crate::operator::{Operator, parse_reason};
use crate::output;
use crate::session::retried;
use crate::store::actions::Verb;

const EXAMPLE: &str = "\
WHAT THIS MEANS: the refund consumer will try to pay again, under a new idempotency key. It looks every earlier attempt
up at the gateway first, declined ones too; one that paid after all ends the matter without another payment.

Remove the cause of the refusal first (`returnsctl refunds show` has the gateway's code), or the attempt is declined
again. If the money has reached the customer in another way, do not retry: `request-mark-paid`.

Running it twice is harmless: it follows the attempt that you name. Once there is a later one, whatever became of that,
it is refused and nothing is changed.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds retry 456 --attempt 1 --reason 'INC-7: card account reopened'";

/// Have another attempt made to pay a return that is refund_failed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The attempt that failed, as `refunds show` tells its number: the last one.
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(1..))]
    attempt: i32,

    /// Why, for whoever reads it a year from now: an incident, a ticket, a sentence.
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: String,

    #[command(flatten)]
    act: ActArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    decision: Decision,
    idempotency_key: ProviderKey,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let (operator, mut conn) = args.act.begin().await?;
    let report = retried(&mut conn, async |conn| retry(conn, args, &operator).await).await?;
    report.tell(args.act.session.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn retry(
    conn: &mut MySqlConnection,
    args: &Args,
    operator: &Operator,
) -> Result<Report, CtlError> {
    let id = args.act.return_id;
    let mut tx = conn.begin().await?;
    let mut held = hold(&mut tx, id, OrderLock::None).await?;
    refuse_own(&held.case, operator)?;
    let next = held.case.retry(args.attempt);
    let number = next.map_err(|why| not_now(id, &why))?;
    let row = held.locked.get(id).ok_or_else(|| no_such_return(id))?;
    let key = transition::add_attempt(&mut tx, row, held.locked.now)
        .await?
        .key;
    let amount = &held.case.refund_amount;
    let details = json!({
        "attempt": number,
        "idempotency_key": key,
        "amount": amount.decimal_text(),
        "currency": amount.currency,
        "version": held.case.version,
    });
    let verb = Verb::RetryRefund;
    let recorded = record(&mut tx, verb, operator, id, &args.reason, details).await?;
    let detail = Map::from_iter([
        ("attempt".to_owned(), json!(number)),
        ("operator_action".to_owned(), json!(recorded)),
    ]);
    let applied = write(
        &mut tx,
        &mut held,
        &args.act.topics,
        operator,
        Action::Retry,
        detail,
    )
    .await?;
    commit(tx, id).await?;
    Ok(Report {
        decision: Decision {
            action: "retry",
            return_id: id,
            status: applied.status,
            seq: applied.seq,
            event_id: applied.event_id,
            attempt: number,
            decided_by: operator.caller.user,
            operator_action: recorded,
        },
        idempotency_key: key,
    })
}

impl Report {
    fn tell(&self, json: bool) -> Result<(), CtlError> {
        if json {
            return output::print_json(self);
        }
        let decision = &self.decision;
        output::print(&format!(
            "return {} is {}: attempt {} is due now, under the key {}; the next scan of a refund consumer takes it",
            decision.return_id, decision.status, decision.attempt, self.idempotency_key
        ))
    }
}
