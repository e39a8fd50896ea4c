//! `returnsctl refunds request-mark-paid`: the first of two persons. Changes nothing but `operator_actions`.

use std::process::ExitCode;

use clap::value_parser;
use serde::Serialize;
use shared::domain::ids::ReturnId;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use super::act::{ActArgs, OrderLock, commit, hold, not_now, record, refuse_own};
use super::case::accepts;
use super::request::{Request, details};
use crate::error::CtlError;
use crate::operator::{Operator, parse_reason};
use crate::output;
use crate::session::retried;
use crate::store::actions::Verb;
use crate::store::refunds::last_request;

const EXAMPLE: &str = "\
WHAT THIS MEANS: nothing yet. Another admin has to confirm within a day, with `returnsctl refunds confirm-mark-paid`,
and before anything else happens to the return; then it is refunded without another payment. A newer request
supersedes this one.

Name the attempt that paid: it may be an earlier one that was declined. A later attempt that is parked becomes void by
it and is never looked at again, so with your evidence you also state that it did not pay.

Allowed while the return is refund_pending with a parked attempt, or refund_failed.

Example:
  OPERATOR_TOKEN=$(cat ~/token) returnsctl refunds request-mark-paid 456 --attempt 1 --gateway-ref re_9f3 \\
    --evidence 'INC-7: provider statement of 2026-11-23, line 14'";

/// Ask that a refund be marked as paid, because you know that the money was paid; another person confirms.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The attempt that paid, as `refunds show` tells its number.
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(1..))]
    attempt: i32,

    /// How you know: the provider's answer, a statement, a ticket.
    #[arg(long, value_name = "NOTE", value_parser = parse_reason)]
    evidence: String,

    /// The provider's name of the payment; kept with the attempt. One that the gateway has told itself is not replaced.
    #[arg(long, value_name = "REF", value_parser = parse_gateway_ref)]
    gateway_ref: Option<String>,

    #[command(flatten)]
    act: ActArgs,
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

#[derive(Debug, Serialize)]
struct Asked {
    action: &'static str,
    return_id: ReturnId,
    /// False if you had asked for the same already; then nothing is recorded.
    changed: bool,
    request: i64,
    attempt: i32,
    requested_by: i64,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let (operator, mut conn) = args.act.begin().await?;
    let asked = retried(&mut conn, async |conn| ask(conn, args, &operator).await).await?;
    asked.tell(args.act.session.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(
    conn: &mut MySqlConnection,
    args: &Args,
    operator: &Operator,
) -> Result<Asked, CtlError> {
    let id = args.act.return_id;
    let mut tx = conn.begin().await?;
    let held = hold(&mut tx, id, OrderLock::None).await?;
    refuse_own(&held.case, operator)?;
    let paid = held.case.mark_paid(args.attempt);
    let paid = paid.map_err(|why| not_now(id, &why))?;
    accepts(&paid, args.gateway_ref.as_deref()).map_err(|why| not_now(id, &why))?;
    let before = last_request(&mut tx, id)
        .await?
        .map(Request::read)
        .transpose()?;
    let same = |known: &Request| {
        known.open(held.case.version).is_ok()
            && known.attempt == args.attempt
            && known.requested_by == operator.caller.user
            && known.evidence == args.evidence
            && known.gateway_ref == args.gateway_ref
    };
    let (changed, request) = match before.filter(same) {
        Some(known) => (false, known.id),
        None => {
            let details = details(&held.case, &paid, args.gateway_ref.as_deref());
            let verb = Verb::RequestMarkPaid;
            let recorded = record(&mut tx, verb, operator, id, &args.evidence, details).await?;
            (true, i64::try_from(recorded).unwrap_or(i64::MAX))
        }
    };
    commit(tx, id).await?;
    Ok(Asked {
        action: "request-mark-paid",
        return_id: id,
        changed,
        request,
        attempt: args.attempt,
        requested_by: operator.caller.user,
    })
}

impl Asked {
    fn tell(&self, json: bool) -> Result<(), CtlError> {
        if json {
            return output::print_json(self);
        }
        let known = if self.changed {
            ""
        } else {
            " (you had asked for the same already)"
        };
        output::print(&format!(
            "request {}{known}: return {} was paid by attempt {}. Nothing has changed yet; another admin confirms \
             within a day:\n  returnsctl refunds confirm-mark-paid {1} --request {0}",
            self.request,
            self.return_id,
            self.attempt,
            known = known
        ))
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
