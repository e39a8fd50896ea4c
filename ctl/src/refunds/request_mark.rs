//! `returnsctl refunds request-mark-paid` and `request-mark-not-paid`: the first of two persons. These commands change
//! `operator_actions` only.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};
use shared::domain::ids::ReturnId;
use shared::domain::refund::{GATEWAY_REF, is_gateway_ref};

use super::decision::{About, AttemptArgs, Decision, not_now};
use super::mark::Mark;
use super::request::MarkRequest;
use crate::error::CtlError;
use crate::output;
use crate::store::refunds::{Lock, last_request};

const PAID_HELP: &str = "\
WHAT THIS MEANS: nothing yet. Another admin has to confirm within a day, with `returnsctl refunds confirm-mark-paid RETURN \
--request N`, and before anything else happens to the return; then it is refunded without another payment. A newer \
request replaces this one.

Name the attempt that paid: it may be an earlier one that was declined. A later attempt that is parked becomes void and \
is never checked again, so with your evidence you also state that it did not pay.

Allowed while the return is refund_pending with a parked attempt, or refund_failed.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds request-mark-paid 456 \\
    --attempt 1 --gateway-ref re_9f3 \\
    --evidence 'INC-7: provider statement of 2026-11-23, line 14'";

const NOT_PAID_HELP: &str = "\
WHAT THIS MEANS: nothing yet. Another admin has to confirm within a day, with `returnsctl refunds confirm-mark-not-paid \
RETURN --request N`, and before anything else happens to the return; then the attempt counts as declined and the return \
is refund_failed. No money moves by this; a retry may follow, and pays. A newer request replaces this one.

If the provider did pay the attempt after all, that retry finds the payment, as long as the provider still returns it: \
look it up there first, by the attempt's idempotency key.

You also state that no earlier attempt at another account paid: a retry is not held back by those any more. Look those up \
at their own account (`returnsctl refunds show RETURN` names the gateway of each).

Refused for an attempt that the provider reported as paid (paid_more_than_order_total, paid_twice, several_found): mark \
such a return as paid.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds request-mark-not-paid 456 \\
    --attempt 1 --evidence 'INC-7: provider: no such payment'";

/// Request to mark a refund as paid, because you know that the money was paid; another person confirms.
#[derive(Debug, clap::Args)]
#[command(after_help = PAID_HELP, mut_arg("reason", evidence))]
pub(super) struct PaidArgs {
    /// The provider's name of the payment; kept with the attempt. It does not replace one that the gateway returned.
    #[arg(long, value_name = "REF", value_parser = parse_gateway_ref)]
    gateway_ref: Option<String>,

    #[command(flatten)]
    attempt: AttemptArgs,
}

/// Request to mark a parked attempt as not paid, because you know that no money was paid; another person confirms.
#[derive(Debug, clap::Args)]
#[command(after_help = NOT_PAID_HELP, mut_arg("reason", evidence))]
pub(super) struct NotPaidArgs {
    #[command(flatten)]
    attempt: AttemptArgs,
}

/// Its words of the reason: how the operator knows.
fn evidence(reason: clap::Arg) -> clap::Arg {
    let help = "How you know: the provider's response with its reference, a statement, a ticket";
    reason.long("evidence").value_name("NOTE").help(help)
}

fn parse_gateway_ref(text: &str) -> Result<String, String> {
    if is_gateway_ref(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("must be {GATEWAY_REF}"))
    }
}

/// What the operator states.
#[derive(Debug, Clone)]
struct Statement {
    mark: Mark,
    /// The reason is the evidence.
    about: About,
    gateway_ref: Option<String>,
}

#[derive(Debug, Serialize)]
struct Requested {
    action: &'static str,
    return_id: ReturnId,
    /// `false` if you had requested the same already; then nothing is recorded.
    changed: bool,
    request: i64,
    mark: Mark,
    attempt: i32,
    requested_by: i64,
}

pub(super) async fn paid(args: PaidArgs) -> Result<ExitCode, CtlError> {
    run(Mark::Paid, args.attempt, args.gateway_ref).await
}

pub(super) async fn not_paid(args: NotPaidArgs) -> Result<ExitCode, CtlError> {
    run(Mark::NotPaid, args.attempt, None).await
}

async fn run(
    mark: Mark,
    attempt: AttemptArgs,
    gateway_ref: Option<String>,
) -> Result<ExitCode, CtlError> {
    let AttemptArgs { about, decision } = attempt;
    let statement = Statement {
        mark,
        about,
        gateway_ref,
    };
    let requested = decision.decide("request_mark", Lock::None, move |decision| {
        Box::pin(request(decision, statement.clone()))
    });
    output::report(&requested.await?, decision.session.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn request(mut decision: Decision<'_>, statement: Statement) -> Result<Requested, CtlError> {
    let (refund, about) = (&decision.refund, &statement.about);
    let (id, user) = (refund.return_id, decision.operator.caller.user);
    let typed = statement.gateway_ref.as_deref();
    let allowed = statement.mark.check(refund, about.attempt, typed);
    let allowed = allowed.map_err(|why| not_now(id, why))?;
    let mut details = Value::Object(allowed.details(refund, typed));
    details["reason_code"] = json!(about.reason_code);
    let last = last_request(decision.tx, id).await?;
    let last = last.map(MarkRequest::read).transpose()?;
    let same = |last: &MarkRequest| {
        last.open(refund.version).is_ok()
            && last.mark == statement.mark
            && last.attempt == about.attempt
            && last.requested_by == user
            && last.evidence == about.reason
            && last.reason_code == about.reason_code
            && last.gateway_ref.as_deref() == typed
    };
    let (changed, request) = match last.filter(same) {
        Some(last) => (false, last.id),
        None => {
            let verb = statement.mark.request_verb();
            let recorded = decision.record(verb, &about.reason, details).await?;
            (true, i64::try_from(recorded).unwrap_or(i64::MAX))
        }
    };
    Ok(Requested {
        action: statement.mark.request_command(),
        return_id: id,
        changed,
        request,
        mark: statement.mark,
        attempt: about.attempt,
        requested_by: user,
    })
}

impl output::Report for Requested {
    fn text(&self) -> String {
        let (request, id) = (self.request, self.return_id);
        let known = if self.changed {
            ""
        } else {
            " (you had requested the same already)"
        };
        format!(
            "Request {request}{known}: attempt {} of return {id} was {}. Nothing has changed yet; another admin confirms \
             within a day:\n  returnsctl refunds {} {id} --request {request}",
            self.attempt,
            self.mark.participle(),
            self.mark.confirm_command()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_ref_can_be_looked_up() {
        assert_eq!(parse_gateway_ref("re_9f3"), Ok("re_9f3".to_owned()));
        for text in ["", ".", "..", "a b"] {
            assert!(parse_gateway_ref(text).is_err(), "{text:?}");
        }
    }
}
