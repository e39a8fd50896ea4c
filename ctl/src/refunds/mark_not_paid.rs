//! `returnsctl refunds mark-not-paid`

use std::process::ExitCode;

use clap::value_parser;
use serde_json::{Map, json};
use shared::domain::refund::AttemptState;
use shared::domain::status::Action;

use super::decision::{Decided, Decision, DecisionArgs, Outcome, close_attempt, not_now};
use crate::error::CtlError;
use crate::operator::parse_reason;
use crate::output;
use crate::store::actions::Verb;
use crate::store::refunds::Lock;
use crate::store::settle::Closing;

const HELP: &str = "\
WHAT THIS MEANS: the attempt counts as declined and the return becomes refund_failed. No money moves by this; a retry may \
follow, and pays. If the provider did pay the attempt after all, that retry finds the payment, as long as the provider \
still returns it: look it up there first, by the attempt's idempotency key.

Refused for an attempt that the provider reported as paid (paid_more_than_order_total, paid_twice, several_found): mark \
such a return as paid.

It is safe to run this twice: it is about the attempt that you name, and the second run changes nothing.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds mark-not-paid 456 --attempt 1 \\
    --evidence 'INC-7: provider: no such payment'";

/// State that a parked attempt paid nothing; the return becomes refund_failed.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The parked attempt, with its number from `refunds show`: the last one.
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(1..))]
    attempt: i32,

    /// How you know: the provider's response with its reference, a ticket, a statement.
    #[arg(long, value_name = "NOTE", value_parser = parse_reason)]
    evidence: String,

    #[command(flatten)]
    decision: DecisionArgs,
}

/// The attempt's `last_error` from now on.
const MARKED: &str = "marked_not_paid";

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let (attempt, evidence) = (args.attempt, args.evidence);
    let decided = args
        .decision
        .decide("mark_not_paid", Lock::None, move |decision| {
            Box::pin(mark(decision, attempt, evidence.clone()))
        });
    output::report(&decided.await?, args.decision.session.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn mark(decision: Decision<'_>, number: i32, evidence: String) -> Result<Decided, CtlError> {
    let refund = &decision.refund;
    let attempt = refund.mark_not_paid(number);
    let attempt = attempt.map_err(|why| not_now(refund.return_id, why))?;
    let declined = Closing {
        state: AttemptState::Declined,
        gateway_ref: None,
        last_error: Some(MARKED),
    };
    close_attempt(decision.tx, attempt, declined, &decision.locked).await?;
    let outcome = Outcome {
        command: "mark-not-paid",
        verb: Verb::MarkNotPaid,
        action: Action::MarkNotPaid,
        reason: evidence,
        attempt: number,
        details: json!({
            "attempt": number,
            "version": refund.version,
            "was": attempt.last_error,
            "gateway_ref": attempt.gateway_ref,
        }),
        event_data: Map::new(),
    };
    decision.write(outcome).await
}

impl output::Report for Decided {
    fn text(&self) -> String {
        format!(
            "Return {} is {}: attempt {} counts as declined. To request another attempt:\n  \
             returnsctl refunds retry {0} --attempt {2} --reason 'WHY'",
            self.return_id, self.status, self.attempt
        )
    }
}
