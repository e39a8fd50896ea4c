//! `returnsctl refunds list`

use std::process::ExitCode;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Serialize;
use shared::domain::ids::{OrderId, ReturnId};
use shared::domain::refund::AttemptState;
use shared::domain::status::Status;
use strum::VariantArray;

use super::parse_return;
use crate::error::CtlError;
use crate::output;
use crate::session::SessionArgs;
use crate::store::refunds::{Listed, Wanted, list_refunds};
use crate::text::{or_dash, printable, rfc3339, span};

const EXAMPLE: &str = "\
Without --state: what waits for a person. `parked` attempts may have paid, and looking up did not settle it;
`refund_failed` shows the last attempt of each return whose refund was refused. Everything else moves by itself.

`next check` of a parked attempt is when it would have been looked at next; nobody does.
`returnsctl refunds show RETURN` tells what may be done.";

/// List attempts to pay returns back, by return; without --state those that wait for a person.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// Only attempts in this state; may be given more than once.
    #[arg(long = "state", value_name = "S")]
    states: Vec<Which>,

    /// Most returns to show.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,

    /// Go on after this return, the last one of the page before.
    #[arg(long, value_name = "RETURN", value_parser = parse_return)]
    after: Option<ReturnId>,

    #[command(flatten)]
    session: SessionArgs,
}

/// What `--state` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Attempts(AttemptState),
    /// The last attempt of returns that are so.
    RefundFailed,
}

const WAITING_FOR_A_PERSON: [Which; 2] =
    [Which::Attempts(AttemptState::Parked), Which::RefundFailed];

impl ValueEnum for Which {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Which; 9] = [
            Which::Attempts(AttemptState::VARIANTS[0]),
            Which::Attempts(AttemptState::VARIANTS[1]),
            Which::Attempts(AttemptState::VARIANTS[2]),
            Which::Attempts(AttemptState::VARIANTS[3]),
            Which::Attempts(AttemptState::VARIANTS[4]),
            Which::Attempts(AttemptState::VARIANTS[5]),
            Which::Attempts(AttemptState::VARIANTS[6]),
            Which::Attempts(AttemptState::VARIANTS[7]),
            Which::RefundFailed,
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Attempts(state) => state.as_str(),
            Self::RefundFailed => Status::RefundFailed.as_str(),
        }))
    }
}

#[derive(Debug, Serialize)]
struct Report {
    refunds: Vec<Line>,
    /// What `--after` takes for the next page; null when this was the last.
    next_after: Option<ReturnId>,
}

#[derive(Debug, Serialize)]
struct Line {
    return_id: ReturnId,
    order_id: OrderId,
    status: Status,
    attempt: i32,
    state: AttemptState,
    amount: String,
    currency: String,
    age_secs: f64,
    next_check_at: String,
    checks: i32,
    gateway: Option<String>,
    gateway_ref: Option<String>,
    last_error: Option<String>,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let mut conn = args.session.connect().await?;
    let refunds = list_refunds(&mut conn, &args.wanted()).await?;
    let report = Report::of(refunds, args.limit);
    if args.session.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn wanted(&self) -> Wanted {
        let which = if self.states.is_empty() {
            &WAITING_FOR_A_PERSON[..]
        } else {
            &self.states
        };
        let state = |which: &Which| match which {
            Which::Attempts(state) => Some(*state),
            Which::RefundFailed => None,
        };
        Wanted {
            states: which.iter().filter_map(state).collect(),
            failed: which.contains(&Which::RefundFailed),
            after: self.after.unwrap_or(ReturnId(0)),
            limit: self.limit,
        }
    }
}

impl Report {
    fn of(refunds: Vec<Listed>, limit: i64) -> Self {
        let mut returns: Vec<ReturnId> =
            refunds.iter().map(|one| one.attempt.id.return_id).collect();
        returns.dedup();
        let full = i64::try_from(returns.len()) == Ok(limit);
        Self {
            refunds: refunds.into_iter().map(Line::from).collect(),
            next_after: returns.last().copied().filter(|_| full),
        }
    }

    fn text(&self) -> String {
        if self.refunds.is_empty() {
            return "no such attempts".to_owned();
        }
        let head = [
            "return",
            "is",
            "attempt",
            "state",
            "amount",
            "age",
            "next check",
            "checks",
            "gateway",
            "reference",
            "last error",
        ];
        let rows: Vec<[String; 11]> = self.refunds.iter().map(Line::cells).collect();
        let mut text = output::table(head, &rows);
        if let Some(last) = self.next_after {
            text.push_str(&format!("\n\nthere may be more: --after {last}"));
        }
        text
    }
}

impl From<Listed> for Line {
    fn from(listed: Listed) -> Self {
        let attempt = listed.attempt;
        Self {
            return_id: attempt.id.return_id,
            order_id: listed.order_id,
            status: listed.status,
            attempt: attempt.id.number,
            state: attempt.state,
            amount: attempt.amount.decimal_text(),
            currency: attempt.amount.currency.to_string(),
            age_secs: listed.age_secs,
            next_check_at: rfc3339(attempt.next_check_at),
            checks: attempt.checks,
            gateway: attempt.gateway,
            gateway_ref: attempt.gateway_ref,
            last_error: attempt.last_error,
        }
    }
}

impl Line {
    fn cells(&self) -> [String; 11] {
        let shown = |text: &Option<String>| or_dash(text.as_deref().map(printable));
        [
            self.return_id.to_string(),
            self.status.to_string(),
            self.attempt.to_string(),
            self.state.as_str().to_owned(),
            format!("{} {}", self.amount, self.currency),
            span(self.age_secs),
            self.next_check_at.clone(),
            self.checks.to_string(),
            shown(&self.gateway),
            shown(&self.gateway_ref),
            shown(&self.last_error),
        ]
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn every_state_can_be_asked_for_by_its_name() {
        for state in AttemptState::iter() {
            assert_eq!(
                Which::from_str(state.as_str(), false),
                Ok(Which::Attempts(state))
            );
        }
        assert_eq!(
            Which::from_str("refund_failed", false),
            Ok(Which::RefundFailed)
        );
        assert!(Which::from_str("paid", false).is_err());
    }
}
