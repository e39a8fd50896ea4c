//! `returnsctl refunds park`

use std::process::ExitCode;

use serde_json::{Map, json};
use shared::domain::refund::ParkReason;
use shared::domain::status::Action;

use super::decision::{About, AttemptArgs, Decided, Decision, Outcome, not_now, write_attempts};
use crate::error::CtlError;
use crate::output;
use crate::store::actions::Verb;
use crate::store::refunds::Lock;

const HELP: &str = "\
WHAT THIS MEANS: no refund consumer looks at the attempt any more, and no money moves. It is for an attempt whose account at \
the provider can never be called again, so that two persons can mark it as paid or as not paid.

Refused for an attempt that was to be checked less than five minutes ago: a consumer works on it. If a consumer with the \
GATEWAY_NAME of the attempt can still be started, start it instead.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds park 456 --attempt 1 \\
    --reason 'INC-7: the account was closed'";

/// Take an attempt on that no refund consumer carries on, because its account at the provider is gone.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(flatten)]
    attempt: AttemptArgs,
}

/// The decision that was written; the names are those of `--json`.
#[derive(Debug, serde::Serialize)]
#[serde(transparent)]
struct Report(Decided);

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let AttemptArgs { about, decision } = args.attempt;
    let parked = decision.decide("park_refund", Lock::None, move |decision| {
        Box::pin(park(decision, about.clone()))
    });
    output::report(&Report(parked.await?), decision.session.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn park(decision: Decision<'_>, about: About) -> Result<Decided, CtlError> {
    let refund = &decision.refund;
    let attempt = refund.give_up(about.attempt, decision.locked.now);
    let attempt = attempt.map_err(|why| not_now(refund.return_id, why))?;
    let mut parked = attempt.clone();
    parked.park(ParkReason::GivenUp, None);
    write_attempts(decision.tx, vec![parked], &decision.locked).await?;
    let outcome = Outcome {
        command: "park",
        verb: Verb::ParkRefund,
        action: Action::Park,
        details: json!({
            "attempt": about.attempt,
            "version": refund.version,
            "was": attempt.state,
            "gateway": attempt.gateway,
            "gateway_ref": attempt.gateway_ref,
        }),
        event_data: Map::from_iter([("reason".to_owned(), json!(ParkReason::GivenUp.as_str()))]),
        about,
    };
    decision.write(outcome).await
}

impl output::Report for Report {
    fn text(&self) -> String {
        let Decided {
            return_id, attempt, ..
        } = self.0;
        format!(
            "Attempt {attempt} of return {return_id} is parked: no consumer looks at it any more. What may be done now:\n  \
             returnsctl refunds show {return_id}"
        )
    }
}
