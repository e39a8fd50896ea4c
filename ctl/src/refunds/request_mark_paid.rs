//! `returnsctl refunds request-mark-paid`: the first of two persons. This command changes `operator_actions` only.

use std::process::ExitCode;

use clap::value_parser;
use serde::Serialize;
use shared::domain::ids::ReturnId;

use super::decision::{Decision, DecisionArgs, not_now};
use super::refund::accepts;
use super::request::{MarkPaidRequest, details};
use crate::error::CtlError;
use crate::operator::parse_reason;
use crate::output;
use crate::store::actions::Verb;
use crate::store::refunds::{Lock, last_request};

const HELP: &str = "\
WHAT THIS MEANS: nothing yet. Another admin has to confirm within a day, with `returnsctl refunds confirm-mark-paid`, and \
before anything else happens to the return; then it is refunded without another payment. A newer request replaces this \
one.

Name the attempt that paid: it may be an earlier one that was declined. A later attempt that is parked becomes void and \
is never checked again, so with your evidence you also state that it did not pay.

Allowed while the return is refund_pending with a parked attempt, or refund_failed.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds request-mark-paid 456 \\
    --attempt 1 --gateway-ref re_9f3 \\
    --evidence 'INC-7: provider statement of 2026-11-23, line 14'";

/// Request to mark a refund as paid, because you know that the money was paid; another person confirms.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The attempt that paid, with its number from `refunds show`.
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(1..))]
    attempt: i32,

    /// How you know: the provider's response, a statement, a ticket.
    #[arg(long, value_name = "NOTE", value_parser = parse_reason)]
    evidence: String,

    /// The provider's name of the payment; kept with the attempt. It does not replace one that the gateway returned.
    #[arg(long, value_name = "REF", value_parser = parse_gateway_ref)]
    gateway_ref: Option<String>,

    #[command(flatten)]
    decision: DecisionArgs,
}

/// The width of `refunds.gateway_ref`.
const LONGEST_REF: usize = 128;

fn parse_gateway_ref(text: &str) -> Result<String, String> {
    let fits = (1..=LONGEST_REF).contains(&text.len());
    if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "must be 1 to {LONGEST_REF} printable ASCII characters without spaces"
        ))
    }
}

/// What the operator states.
#[derive(Debug, Clone)]
struct Claim {
    attempt: i32,
    evidence: String,
    gateway_ref: Option<String>,
}

#[derive(Debug, Serialize)]
struct Requested {
    action: &'static str,
    return_id: ReturnId,
    /// `false` if you had requested the same already; then nothing is recorded.
    changed: bool,
    request: i64,
    attempt: i32,
    requested_by: i64,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let claim = Claim {
        attempt: args.attempt,
        evidence: args.evidence,
        gateway_ref: args.gateway_ref,
    };
    let requested = args
        .decision
        .decide("request_mark_paid", Lock::None, move |decision| {
            Box::pin(request(decision, claim.clone()))
        });
    output::report(&requested.await?, args.decision.session.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn request(mut decision: Decision<'_>, claim: Claim) -> Result<Requested, CtlError> {
    let refund = &decision.refund;
    let (id, user) = (refund.return_id, decision.operator.caller.user);
    let refused = |why: String| not_now(id, why);
    let paid = refund.mark_paid(claim.attempt).map_err(refused)?;
    accepts(&paid, claim.gateway_ref.as_deref()).map_err(refused)?;
    let details = details(refund, &paid, claim.gateway_ref.as_deref());
    let last = last_request(decision.tx, id).await?;
    let last = last.map(MarkPaidRequest::read).transpose()?;
    let same = |last: &MarkPaidRequest| {
        last.open(refund.version).is_ok()
            && last.attempt == claim.attempt
            && last.requested_by == user
            && last.evidence == claim.evidence
            && last.gateway_ref == claim.gateway_ref
    };
    let (changed, request) = match last.filter(same) {
        Some(last) => (false, last.id),
        None => {
            let verb = Verb::RequestMarkPaid;
            let recorded = decision.record(verb, &claim.evidence, details).await?;
            (true, i64::try_from(recorded).unwrap_or(i64::MAX))
        }
    };
    Ok(Requested {
        action: "request-mark-paid",
        return_id: id,
        changed,
        request,
        attempt: claim.attempt,
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
            "Request {request}{known}: return {id} was paid by attempt {}. Nothing has changed yet; another admin confirms \
             within a day:\n  returnsctl refunds confirm-mark-paid {id} --request {request}",
            self.attempt
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_ref_fits_its_column() {
        assert_eq!(parse_gateway_ref("re_9f3"), Ok("re_9f3".to_owned()));
        for text in ["", "a b", "ä", "a\n", &"x".repeat(129)] {
            assert!(parse_gateway_ref(text).is_err(), "{text:?}");
        }
    }
}
