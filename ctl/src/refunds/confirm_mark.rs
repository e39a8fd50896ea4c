//! `returnsctl refunds confirm-mark-paid` and `confirm-mark-not-paid`: the second of two persons. These commands write all
//! changes.
//!
//! The request is read under the lock of the return's row. A new request takes the same lock, so none replaces this one
//! meanwhile.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::domain::refund::{AttemptState, MARKED_NOT_PAID};

use super::decision::{About, Decided, Decision, DecisionArgs, Outcome, not_now, write_attempts};
use super::mark::{Allowed, Mark};
use super::request::MarkRequest;
use crate::error::CtlError;
use crate::output;
use crate::store::refunds::last_request;

const PAID_HELP: &str = "\
WHAT THIS MEANS: the return is refunded for good, the amount counts against its order, and no further payment is made. \
Check the evidence yourself first: `returnsctl refunds show RETURN`.

A later attempt that is parked becomes void and is never checked again: you too state that it did not pay.

You cannot confirm your own request. A request is valid for a day, and only for the return as it was then. Both persons \
are recorded.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds confirm-mark-paid 456 \\
    --request 12";

const NOT_PAID_HELP: &str = "\
WHAT THIS MEANS: the attempt counts as declined and the return becomes refund_failed. No money moves by this; a retry may \
follow, and pays, also if the attempt paid and the provider no longer returns it. Check the evidence yourself first: \
`returnsctl refunds show RETURN`.

You cannot confirm your own request. A request is valid for a day, and only for the return as it was then. Both persons \
are recorded.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds confirm-mark-not-paid 456 \\
    --request 12";

/// Confirm another person's request: the return becomes refunded without another payment.
#[derive(Debug, clap::Args)]
#[command(after_help = PAID_HELP)]
pub(super) struct PaidArgs {
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Confirm another person's request: the parked attempt paid nothing, and the return becomes refund_failed.
#[derive(Debug, clap::Args)]
#[command(after_help = NOT_PAID_HELP)]
pub(super) struct NotPaidArgs {
    #[command(flatten)]
    confirm: ConfirmArgs,
}

// No doc comment: see `SessionArgs`.
#[derive(Debug, clap::Args)]
struct ConfirmArgs {
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
    mark: Mark,
    request: i64,
    requested_by: i64,
}

pub(super) async fn paid(args: PaidArgs) -> Result<ExitCode, CtlError> {
    run(Mark::Paid, args.confirm).await
}

pub(super) async fn not_paid(args: NotPaidArgs) -> Result<ExitCode, CtlError> {
    run(Mark::NotPaid, args.confirm).await
}

async fn run(mark: Mark, args: ConfirmArgs) -> Result<ExitCode, CtlError> {
    let request = args.request;
    let confirmed = args
        .decision
        .decide("confirm_mark", mark.order_lock(), move |decision| {
            Box::pin(confirm(decision, mark, request))
        });
    output::report(&confirmed.await?, args.decision.session.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn confirm(
    mut decision: Decision<'_>,
    mark: Mark,
    wanted: i64,
) -> Result<Confirmed, CtlError> {
    let request = confirmable(&mut decision, mark, wanted).await?;
    let refund = decision.refund.clone();
    let typed = request.gateway_ref.as_deref();
    let allowed = mark.check(&refund, request.attempt, typed);
    let allowed = allowed.map_err(|why| not_now(refund.return_id, why))?;
    close(&mut decision, &allowed, typed).await?;
    let mut details = allowed.details(&refund, allowed.reference(typed));
    details.extend(by_two(&request));
    let mut event_data = Map::from_iter(by_two(&request));
    if let Some(reference) = allowed.reference(typed) {
        event_data.insert("gateway_ref".to_owned(), json!(reference));
    }
    let outcome = Outcome {
        command: mark.confirm_command(),
        verb: mark.confirm_verb(),
        action: mark.action(),
        about: About {
            attempt: request.attempt,
            reason: format!("confirms request {}", request.id),
            reason_code: request.reason_code.clone(),
        },
        details: Value::Object(details),
        event_data,
    };
    Ok(Confirmed {
        decision: decision.write(outcome).await?,
        mark,
        request: request.id,
        requested_by: request.requested_by,
    })
}

/// The request, if this operator may confirm it now. Whether the rows still allow what it states is checked first, because
/// that explains more than an outdated request.
async fn confirmable(
    decision: &mut Decision<'_>,
    mark: Mark,
    wanted: i64,
) -> Result<MarkRequest, CtlError> {
    let refund = &decision.refund;
    let refused = |why: String| not_now(refund.return_id, why);
    let last = last_request(decision.tx, refund.return_id).await?;
    let request = last.map(MarkRequest::read).transpose()?.ok_or_else(|| {
        let participle = mark.participle();
        refused(format!(
            "nobody has requested that it be marked as {participle}"
        ))
    })?;
    if wanted != request.id {
        let last = request.id;
        return Err(refused(format!("the last request is {last}, not {wanted}")));
    }
    request.states(mark).map_err(refused)?;
    mark.check(refund, request.attempt, None).map_err(refused)?;
    request
        .open(refund.version)
        .map_err(|why| refused(format!("{why}; request it again")))?;
    let user = decision.operator.caller.user;
    if request.requested_by == user {
        return Err(refused(format!(
            "request {} is your own (user {user}); another person has to confirm it",
            request.id
        )));
    }
    Ok(request)
}

/// Writes the attempts.
async fn close(
    decision: &mut Decision<'_>,
    allowed: &Allowed<'_>,
    typed: Option<&str>,
) -> Result<(), CtlError> {
    let mut marked = allowed.attempt().clone();
    marked.close(allowed.state(), allowed.reference(typed));
    if let Allowed::NotPaid(_) = allowed {
        marked.last_error = Some(MARKED_NOT_PAID.to_owned());
    }
    let mut closed = vec![marked];
    for superfluous in allowed.superfluous() {
        let mut void = (*superfluous).clone();
        void.close(AttemptState::Void, None);
        closed.push(void);
    }
    write_attempts(decision.tx, closed, &decision.locked).await
}

/// The event's actor is the person who confirmed; this is the person who requested.
fn by_two(request: &MarkRequest) -> [(String, Value); 2] {
    [
        ("requested_by".to_owned(), json!(request.requested_by)),
        ("request".to_owned(), json!(request.id)),
    ]
}

impl output::Report for Confirmed {
    fn text(&self) -> String {
        let decision = &self.decision;
        let persons = format!(
            "requested by user {} and confirmed by user {}",
            self.requested_by, decision.decided_by
        );
        let (id, status, attempt) = (decision.return_id, decision.status, decision.attempt);
        match self.mark {
            Mark::Paid => {
                format!("Return {id} is {status}: marked as paid by attempt {attempt}, {persons}.")
            }
            Mark::NotPaid => format!(
                "Return {id} is {status}: attempt {attempt} counts as declined, {persons}. To request another attempt:\n  \
                 returnsctl refunds retry {id} --attempt {attempt} --reason 'WHY'"
            ),
        }
    }
}
