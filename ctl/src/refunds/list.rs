//! `returnsctl refunds list`

use std::process::ExitCode;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Serialize;
use shared::domain::ids::{OrderId, ReturnId};
use shared::domain::refund::AttemptState;
use shared::domain::status::Status;
use strum::VariantArray;

use super::answer::answer_note;
use super::overdue::{note, overdue_secs};
use crate::error::CtlError;
use crate::layout::{Row, table};
use crate::output;
use crate::return_id::parse_return;
use crate::session::SessionArgs;
use crate::store::refunds::{AttemptFilter, Listed, list_refunds};
use crate::text::{counted, or_dash, printable, rfc3339, span, to_second};

const HELP: &str = "\
Without --state: refunds that wait for a person. `parked` attempts may have paid, and the gateway could not tell; \
`refund_failed` shows the last attempt of each return whose refund was refused. `overdue` attempts were to be checked more \
than five minutes ago, and no refund consumer does it: an attempt is carried on only by a consumer with the GATEWAY_NAME of \
the gateway that it was sent to. All others continue without help.

`doubtful` attempts have paid, and the provider no longer confirms it: `last error` is its answer, or says that a reversal \
waits until another return of the order has ended.

For a parked attempt, `next check` is the time when it would have been checked; no program checks it. `returnsctl \
refunds show RETURN` shows what may be done.";

/// List attempts to refund returns, by return; without --state, those that wait for a person.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Only attempts in this state; may be given more than once.
    #[arg(long = "state", value_name = "S")]
    states: Vec<StateFilter>,

    /// Show at most this many returns.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,

    /// Continue after this return, the last one of the page before.
    #[arg(long, value_name = "RETURN", value_parser = parse_return)]
    after: Option<ReturnId>,

    #[command(flatten)]
    session: SessionArgs,
}

/// A value of `--state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StateFilter {
    Attempts(AttemptState),
    /// The last attempt of each return that is refund_failed.
    RefundFailed,
    /// Attempts that a consumer should have checked long ago.
    Overdue,
    /// Paid attempts that the provider no longer confirms.
    Doubtful,
}

const WAITING_FOR_A_PERSON: [StateFilter; 3] = [
    StateFilter::Attempts(AttemptState::Parked),
    StateFilter::RefundFailed,
    StateFilter::Overdue,
];

impl ValueEnum for StateFilter {
    fn value_variants<'a>() -> &'a [Self] {
        const STATES: &[AttemptState] = AttemptState::VARIANTS;
        // Of the three places beside the states, the last keeps its initial value.
        const ALL: [StateFilter; STATES.len() + 3] = {
            let mut all = [StateFilter::Doubtful; STATES.len() + 3];
            all[STATES.len()] = StateFilter::RefundFailed;
            all[STATES.len() + 1] = StateFilter::Overdue;
            let mut at = 0;
            while at < STATES.len() {
                all[at] = StateFilter::Attempts(STATES[at]);
                at += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Attempts(state) => state.as_str(),
            Self::RefundFailed => Status::RefundFailed.as_str(),
            Self::Overdue => "overdue",
            Self::Doubtful => "doubtful",
        }))
    }
}

#[derive(Debug, Serialize)]
struct Report {
    refunds: Vec<Line>,
    /// The value of `--after` for the next page; `None` on the last page.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    overdue_secs: Option<f64>,
    gateway: Option<String>,
    gateway_ref: Option<String>,
    last_error: Option<String>,
    refusals: i32,
    provider_answer: Option<String>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let session = args.session.connect().await?;
    let filter = args.filter();
    let refunds = session.read("list_refunds", |conn| {
        Box::pin(async move { list_refunds(conn, &filter).await })
    });
    let report = Report::of(refunds.await?, args.limit);
    output::report(&report, args.session.json)?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn filter(&self) -> AttemptFilter {
        let states = if self.states.is_empty() {
            &WAITING_FOR_A_PERSON[..]
        } else {
            &self.states
        };
        let state = |filter: &StateFilter| match filter {
            StateFilter::Attempts(state) => Some(*state),
            StateFilter::RefundFailed | StateFilter::Overdue | StateFilter::Doubtful => None,
        };
        AttemptFilter {
            states: states.iter().filter_map(state).collect(),
            failed: states.contains(&StateFilter::RefundFailed),
            overdue: states.contains(&StateFilter::Overdue),
            doubtful: states.contains(&StateFilter::Doubtful),
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
}

impl output::Report for Report {
    fn text(&self) -> String {
        if self.refunds.is_empty() {
            return "No attempts.".to_owned();
        }
        let head = ["return", "status", "attempt", "state", "amount", "age"];
        let rows: Vec<Row<6>> = self.refunds.iter().map(Line::row).collect();
        let mut text = table(head, &rows);
        if let Some(last) = self.next_after {
            text.push_str(&format!("\n\nThere may be more: --after {last}"));
        }
        text
    }
}

impl From<Listed> for Line {
    fn from(listed: Listed) -> Self {
        let attempt = listed.attempt;
        Self {
            overdue_secs: overdue_secs(&attempt, listed.now),
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
            refusals: attempt.refusals,
            provider_answer: attempt.provider_answer,
        }
    }
}

impl Line {
    fn row(&self) -> Row<6> {
        let shown = |text: &Option<String>| or_dash(text.as_deref().map(printable));
        let overdue = self
            .overdue_secs
            .map(|secs| note(secs, self.gateway.as_deref()));
        Row {
            cells: [
                self.return_id.to_string(),
                self.status.to_string(),
                self.attempt.to_string(),
                self.state.as_str().to_owned(),
                format!("{} {}", self.amount, self.currency),
                span(self.age_secs),
            ],
            below: [
                Some(format!(
                    "gateway {}, reference {}",
                    shown(&self.gateway),
                    shown(&self.gateway_ref)
                )),
                Some(format!(
                    "last error {}; {}, next check {}",
                    shown(&self.last_error),
                    counted(self.checks, "check"),
                    to_second(&self.next_check_at)
                )),
                answer_note(self.refusals, self.provider_answer.as_deref()),
                overdue,
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_can_be_asked_for_by_its_name() {
        for &state in AttemptState::VARIANTS {
            assert_eq!(
                StateFilter::from_str(state.as_str(), false),
                Ok(StateFilter::Attempts(state))
            );
        }
        assert_eq!(
            StateFilter::from_str("refund_failed", false),
            Ok(StateFilter::RefundFailed)
        );
        assert_eq!(
            StateFilter::from_str("overdue", false),
            Ok(StateFilter::Overdue)
        );
        assert_eq!(
            StateFilter::from_str("doubtful", false),
            Ok(StateFilter::Doubtful)
        );
        assert!(StateFilter::from_str("paid", false).is_err());
    }

    #[test]
    fn wide_values_fit() {
        let line = Line {
            return_id: ReturnId(i64::MAX),
            order_id: OrderId(i64::MAX),
            status: Status::RefundPending,
            attempt: i32::MAX,
            state: AttemptState::Succeeded,
            amount: "999999999999.9999".to_owned(),
            currency: "EUR".to_owned(),
            age_secs: 7_000.0,
            next_check_at: "2026-11-23T02:13:20.123456Z".to_owned(),
            checks: i32::MAX,
            overdue_secs: Some(7_000_000.0),
            gateway: Some("g".repeat(64)),
            gateway_ref: Some("r".repeat(128)),
            last_error: Some("paid_more_than_order_total".to_owned()),
            refusals: i32::MAX,
            provider_answer: Some(format!("400 {}", "c".repeat(64))),
        };
        let text = output::expect_fits(&Report {
            refunds: vec![line],
            next_after: Some(ReturnId(i64::MAX)),
        });
        assert!(text.contains("9223372036854775807"), "{text}");
    }
}
