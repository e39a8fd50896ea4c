//! The states of a return and the table of allowed moves, which docs/STATES.md draws.
//!
//! It is pure: `transition` applies it to a locked row before it writes.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoEnumIterator, IntoStaticStr};

/// The state of a return.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    Initiated,
    Approved,
    Rejected,
    Cancelled,
    RefundPending,
    Refunded,
    RefundFailed,
}

/// What can happen to a return after it was filed. Each allowed action writes exactly one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter)]
pub enum Action {
    /// By the policy (automatic) or by an admin.
    Approve,
    Reject,
    Cancel,
    /// A refund attempt was recorded.
    Claim,
    /// The gateway confirmed the refund.
    Confirm,
    /// The gateway refused the refund for good.
    Decline,
    /// A person wants another attempt.
    Retry,
    /// Two persons state, with evidence, that the refund was paid.
    MarkPaid,
    /// Two persons state, with evidence, that an attempt with unknown outcome paid nothing.
    MarkNotPaid,
    /// An earlier attempt turned out to have succeeded.
    LateSuccess,
    /// The gateway has taken a confirmed refund back.
    Reverse,
    /// The outcome at the gateway is not known; the attempt will be looked up.
    OutcomeUnknown,
    /// The attempt waits for a person.
    Park,
    /// A late response contradicts the row. It is recorded, and the status stays.
    Disagreement,
}

/// The type of the first event of every return.
pub const FILED: &str = "return.initiated";

/// Every type of event.
pub fn event_types() -> impl Iterator<Item = &'static str> {
    std::iter::once(FILED).chain(Action::iter().map(Action::event_type))
}

/// The action is not allowed in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{action:?} is not allowed while {status}")]
pub struct NotAllowed {
    pub status: Status,
    pub action: Action,
}

impl Status {
    /// The transition table: the state after `action`.
    ///
    /// # Errors
    /// [`NotAllowed`] for every pair that is not in the table.
    pub fn after(self, action: Action) -> Result<Self, NotAllowed> {
        use Action as A;
        let not_allowed = NotAllowed {
            status: self,
            action,
        };
        let next = match (self, action) {
            (Self::Initiated, A::Approve) => Self::Approved,
            (Self::Initiated | Self::Approved, A::Reject) => Self::Rejected,
            (Self::Initiated | Self::Approved, A::Cancel) => Self::Cancelled,
            (Self::Approved, A::Claim) => Self::RefundPending,
            (Self::RefundPending, A::Confirm | A::MarkPaid) => Self::Refunded,
            (Self::RefundPending, A::Decline | A::MarkNotPaid) => Self::RefundFailed,
            (Self::RefundFailed, A::Retry) => Self::RefundPending,
            (Self::RefundFailed | Self::RefundPending, A::LateSuccess) => Self::Refunded,
            (Self::RefundFailed, A::MarkPaid) => Self::Refunded,
            (Self::Refunded, A::Reverse) => Self::RefundFailed,
            // Events that leave the status as it is.
            (Self::RefundPending, A::OutcomeUnknown | A::Park) => Self::RefundPending,
            (Self::RefundPending | Self::Refunded | Self::RefundFailed, A::Disagreement) => self,
            _ => return Err(not_allowed),
        };
        Ok(next)
    }

    /// Whether a return in this state blocks another return of its order (`returns.open_order_id`).
    pub fn is_open(self) -> bool {
        match self {
            Self::Initiated | Self::Approved | Self::RefundPending | Self::RefundFailed => true,
            Self::Rejected | Self::Cancelled | Self::Refunded => false,
        }
    }

    /// The name, as in columns and messages.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Action {
    /// The type of the event that this action writes.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Approve => "return.approved",
            Self::Reject => "return.rejected",
            Self::Cancel => "return.cancelled",
            Self::Claim => "refund.requested",
            Self::Confirm => "refund.succeeded",
            Self::Decline => "refund.failed",
            Self::Retry => "refund.retried",
            Self::MarkPaid => "refund.marked_paid",
            Self::MarkNotPaid => "refund.marked_not_paid",
            Self::LateSuccess => "refund.found_paid",
            Self::Reverse => "refund.reversed",
            Self::OutcomeUnknown => "refund.outcome_unknown",
            Self::Park => "refund.parked",
            Self::Disagreement => "refund.answer_disagreed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every allowed move. The test below checks that all other pairs are refused.
    const ALLOWED: [(Status, Action, Status); 20] = [
        (Status::Initiated, Action::Approve, Status::Approved),
        (Status::Initiated, Action::Reject, Status::Rejected),
        (Status::Initiated, Action::Cancel, Status::Cancelled),
        (Status::Approved, Action::Reject, Status::Rejected),
        (Status::Approved, Action::Cancel, Status::Cancelled),
        (Status::Approved, Action::Claim, Status::RefundPending),
        (Status::RefundPending, Action::Confirm, Status::Refunded),
        (Status::RefundPending, Action::Decline, Status::RefundFailed),
        (Status::RefundPending, Action::MarkPaid, Status::Refunded),
        (
            Status::RefundPending,
            Action::MarkNotPaid,
            Status::RefundFailed,
        ),
        (Status::RefundPending, Action::LateSuccess, Status::Refunded),
        (
            Status::RefundPending,
            Action::OutcomeUnknown,
            Status::RefundPending,
        ),
        (Status::RefundPending, Action::Park, Status::RefundPending),
        (
            Status::RefundPending,
            Action::Disagreement,
            Status::RefundPending,
        ),
        (Status::RefundFailed, Action::Retry, Status::RefundPending),
        (Status::RefundFailed, Action::MarkPaid, Status::Refunded),
        (Status::RefundFailed, Action::LateSuccess, Status::Refunded),
        (
            Status::RefundFailed,
            Action::Disagreement,
            Status::RefundFailed,
        ),
        (Status::Refunded, Action::Reverse, Status::RefundFailed),
        (Status::Refunded, Action::Disagreement, Status::Refunded),
    ];

    #[test]
    fn p8_every_pair_is_on_the_graph_or_refused() {
        for status in Status::iter() {
            for action in Action::iter() {
                let expected = ALLOWED
                    .iter()
                    .find(|(from, by, _)| (*from, *by) == (status, action))
                    .map(|(_, _, to)| *to)
                    .ok_or(NotAllowed { status, action });
                assert_eq!(status.after(action), expected, "{status} {action:?}");
            }
        }
    }

    #[test]
    fn columns_and_messages_use_the_same_names() {
        for status in Status::iter() {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::json!(status), status.as_str());
        }
        assert!("Refunded".parse::<Status>().is_err());
    }
}
