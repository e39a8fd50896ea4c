//! What a process learned about an attempt, and what that led to.

use strum::{IntoStaticStr, VariantNames};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{AttemptId, ParkReason};

/// What was learned about an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Succeeded {
        gateway_ref: String,
    },
    /// Refused for good.
    Declined {
        gateway_ref: String,
        code: String,
    },
    /// Paid before, and taken back since: the result of looking a paid attempt up again.
    Reversed {
        code: String,
        /// Then the return cannot become open again yet. Set under the order's lock, when the report is settled.
        order_has_open_return: bool,
    },
    /// Accepted; the gateway settles it later.
    Pending {
        gateway_ref: String,
    },
    /// It was sent, and no usable response came.
    Unknown {
        error: &'static str,
        answer: Option<UnusableAnswer>,
    },
    /// This call certainly paid nothing: it did not reach the gateway, or was refused.
    NotSent {
        error: &'static str,
        /// Nor did any call before it.
        never_sent: bool,
        answer: Option<UnusableAnswer>,
    },
    /// The look-up brought nothing new, or was not made.
    StillOpen {
        error: &'static str,
        looked_up: bool,
        answer: Option<UnusableAnswer>,
    },
    /// Only a person can find out.
    Park {
        reason: ParkReason,
    },
}

/// A response that refuses the attempt, or that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableAnswer {
    /// The status and the provider's codes, as stored in `refunds.provider_answer`: no free text, which may hold personal data.
    pub words: String,
    /// `false` while the provider answers every refund in this way: then it is not about this one.
    pub counts: bool,
    /// What the attempt is parked for after several of them.
    pub reason: ParkReason,
}

impl Outcome {
    pub(super) fn unusable_answer(&self) -> Option<&UnusableAnswer> {
        match self {
            Self::Unknown { answer, .. }
            | Self::NotSent { answer, .. }
            | Self::StillOpen { answer, .. } => answer.as_ref(),
            Self::Succeeded { .. }
            | Self::Declined { .. }
            | Self::Reversed { .. }
            | Self::Pending { .. }
            | Self::Park { .. } => None,
        }
    }
}

/// An outcome, the attempt it is about, and the process that reports it.
#[derive(Debug, Clone)]
pub struct OutcomeReport {
    pub attempt: AttemptId,
    pub outcome: Outcome,
    pub reporter: Uuid,
    /// The row's `call_deadline` while the reporter owned the attempt. A process may own one attempt several times; this
    /// value differs each time.
    pub owned_until: OffsetDateTime,
    /// A later attempt that the reporter owns and certainly has not sent: `attempt` was looked up on its behalf.
    pub unsent: Option<i32>,
}

/// What a report led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Settled {
    Refunded,
    /// Refunded, and with what the shop says that it has refunded itself, that is more than the order's total. The customer
    /// may have been paid twice.
    RefundedBesideShop,
    Declined,
    /// A paid return is unpaid again.
    Reversed,
    /// Kept open, to be looked up again.
    Postponed,
    Parked,
    /// The row already says so.
    Agreed,
    /// The row says otherwise; there is an audit row about it.
    Disagreed,
    /// The reporter no longer owns the attempt; the present owner will learn the outcome too.
    NotOwner,
    /// The rows contradict each other, as after a restored backup. Needs a person.
    Stuck,
}

impl Settled {
    /// The name, as counted.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the attempt has its outcome now, paid or declined.
    pub fn is_final(self) -> bool {
        self.is_refund() || self == Self::Declined
    }

    /// Whether the return has become refunded now.
    pub fn is_refund(self) -> bool {
        matches!(self, Self::Refunded | Self::RefundedBesideShop)
    }

    /// Whether a person has to look at it.
    pub fn needs_a_person(self) -> bool {
        match self {
            Self::RefundedBesideShop
            | Self::Reversed
            | Self::Parked
            | Self::Disagreed
            | Self::Stuck => true,
            Self::Refunded | Self::Declined | Self::Postponed | Self::Agreed | Self::NotOwner => {
                false
            }
        }
    }
}
