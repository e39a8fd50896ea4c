//! `returnsctl refunds retry`

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, json};
use shared::domain::refund::ProviderKey;
use shared::domain::status::Action;
use shared::domain::transition;

use super::decision::{About, AttemptArgs, Decided, Decision, Outcome, not_now};
use crate::error::CtlError;
use crate::output;
use crate::return_id::no_such_return;
use crate::store::actions::Verb;
use crate::store::refunds::Lock;

const HELP: &str = "\
WHAT THIS MEANS: the refund consumer will try to pay again, under a new idempotency key. It looks up every earlier \
attempt at the gateway first, including declined ones; if one of them paid after all, the return is refunded without \
another payment.

Remove the cause of the refusal first (`returnsctl refunds show RETURN` has the gateway's code), or the attempt is declined \
again. If the customer got the money in another way, do not retry: `request-mark-paid`.

It is safe to run this twice: it follows the attempt that you name. Once there is a later attempt, in any state, the \
command is refused and nothing is changed.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds retry 456 --attempt 1 \\
    --reason 'INC-7: card account reopened'";

/// Request another attempt to pay a return that is refund_failed.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(flatten)]
    attempt: AttemptArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    decision: Decided,
    idempotency_key: ProviderKey,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let AttemptArgs { about, decision } = args.attempt;
    let report = decision.decide("retry_refund", Lock::None, move |decision| {
        Box::pin(retry(decision, about.clone()))
    });
    output::report(&report.await?, decision.session.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn retry(decision: Decision<'_>, about: About) -> Result<Report, CtlError> {
    let id = decision.refund.return_id;
    let attempt = decision.refund.retry(about.attempt);
    let attempt = attempt.map_err(|why| not_now(id, why))?;
    let row = decision.locked.get(id).ok_or_else(|| no_such_return(id))?;
    let added = transition::add_attempt(decision.tx, row, decision.locked.now).await?;
    let amount = &decision.refund.amount;
    let outcome = Outcome {
        command: "retry",
        verb: Verb::RetryRefund,
        action: Action::Retry,
        about: About { attempt, ..about },
        details: json!({
            "attempt": attempt,
            "idempotency_key": added.key,
            "amount": amount.decimal_text(),
            "currency": amount.currency,
            "version": decision.refund.version,
        }),
        event_data: Map::new(),
    };
    Ok(Report {
        decision: decision.write(outcome).await?,
        idempotency_key: added.key,
    })
}

impl output::Report for Report {
    fn text(&self) -> String {
        let decision = &self.decision;
        format!(
            "Return {} is {}: attempt {} is due now; the next scan of a refund consumer takes it.\n  key {}",
            decision.return_id, decision.status, decision.attempt, self.idempotency_key
        )
    }
}
