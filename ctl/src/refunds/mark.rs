//! What two persons may state about an attempt: that it paid, or that it did not. One requests, another confirms.
//!
//! Both directions are dangerous with one person: "paid" ends the return without a payment, and after "not paid" a retry
//! pays, perhaps for the second time.

use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::domain::refund::{Attempt, AttemptState, MarkPaid};
use shared::domain::status::Action;

use super::refund::{Refund, accepts};
use crate::store::actions::Verb;
use crate::store::refunds::Lock;

/// What a request states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mark {
    Paid,
    NotPaid,
}

/// A statement that the rows allow now.
#[derive(Debug)]
pub(super) enum Allowed<'a> {
    Paid(MarkPaid<'a>),
    NotPaid(&'a Attempt),
}

impl Mark {
    pub(super) const ALL: [Self; 2] = [Self::Paid, Self::NotPaid];

    pub(super) fn request_command(self) -> &'static str {
        match self {
            Self::Paid => "request-mark-paid",
            Self::NotPaid => "request-mark-not-paid",
        }
    }

    pub(super) fn confirm_command(self) -> &'static str {
        match self {
            Self::Paid => "confirm-mark-paid",
            Self::NotPaid => "confirm-mark-not-paid",
        }
    }

    pub(super) fn request_verb(self) -> Verb {
        match self {
            Self::Paid => Verb::RequestMarkPaid,
            Self::NotPaid => Verb::RequestMarkNotPaid,
        }
    }

    pub(super) fn confirm_verb(self) -> Verb {
        match self {
            Self::Paid => Verb::ConfirmMarkPaid,
            Self::NotPaid => Verb::ConfirmMarkNotPaid,
        }
    }

    pub(super) fn action(self) -> Action {
        match self {
            Self::Paid => Action::MarkPaid,
            Self::NotPaid => Action::MarkNotPaid,
        }
    }

    /// Money is counted on the order only for a payment.
    pub(super) fn order_lock(self) -> Lock {
        match self {
            Self::Paid => Lock::Update,
            Self::NotPaid => Lock::None,
        }
    }

    /// In a sentence: "attempt 1 was …".
    pub(super) fn participle(self) -> &'static str {
        match self {
            Self::Paid => "paid",
            Self::NotPaid => "not paid",
        }
    }

    /// What the rows allow of it now, for attempt `number` with the reference that a person has typed.
    pub(super) fn check<'a>(
        self,
        refund: &'a Refund,
        number: i32,
        gateway_ref: Option<&str>,
    ) -> Result<Allowed<'a>, String> {
        match self {
            Self::Paid => {
                let paid = refund.mark_paid(number)?;
                accepts(&paid, gateway_ref)?;
                Ok(Allowed::Paid(paid))
            }
            Self::NotPaid => Ok(Allowed::NotPaid(refund.mark_not_paid(number)?)),
        }
    }
}

impl Allowed<'_> {
    /// The attempt that the statement is about.
    pub(super) fn attempt(&self) -> &Attempt {
        match self {
            Self::Paid(paid) => paid.by,
            Self::NotPaid(attempt) => attempt,
        }
    }

    /// The state of that attempt once the statement is confirmed.
    pub(super) fn state(&self) -> AttemptState {
        match self {
            Self::Paid(_) => AttemptState::Succeeded,
            Self::NotPaid(_) => AttemptState::Declined,
        }
    }

    /// The parked attempts that a payment makes superfluous.
    pub(super) fn superfluous(&self) -> &[&Attempt] {
        match self {
            Self::Paid(paid) => &paid.superfluous,
            Self::NotPaid(_) => &[],
        }
    }

    /// The gateway's reference once the statement is confirmed: its own, or the one that a person has typed.
    pub(super) fn reference<'r>(&'r self, typed: Option<&'r str>) -> Option<&'r str> {
        self.attempt().gateway_ref.as_deref().or(typed)
    }

    /// For `operator_actions`, with the request and with the confirmation.
    pub(super) fn details(&self, refund: &Refund, gateway_ref: Option<&str>) -> Map<String, Value> {
        let attempt = self.attempt();
        Map::from_iter([
            ("version".to_owned(), json!(refund.version)),
            ("status".to_owned(), json!(refund.state.status)),
            ("attempt".to_owned(), json!(attempt.id.number)),
            ("amount".to_owned(), json!(attempt.amount.decimal_text())),
            ("currency".to_owned(), json!(attempt.amount.currency)),
            ("gateway_ref".to_owned(), json!(gateway_ref)),
            ("was".to_owned(), json!(attempt.last_error)),
        ])
    }
}
