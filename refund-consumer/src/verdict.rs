//! What was learned about an attempt, who brings it, and what it led to.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::attempt::AttemptId;

/// What was learned about an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Succeeded {
        gateway_ref: String,
    },
    /// Refused for good.
    Declined {
        gateway_ref: String,
        code: String,
    },
    /// Accepted; the gateway settles it later.
    Pending {
        gateway_ref: String,
    },
    /// Sent, and no usable answer came.
    Unknown {
        error: &'static str,
    },
    /// This call certainly did not reach the gateway.
    NotSent {
        error: &'static str,
        /// Nor did any call before it.
        never_sent: bool,
    },
    /// The look-up told nothing new, or was not made.
    StillOpen {
        error: &'static str,
        looked_up: bool,
    },
    /// Only a person can tell.
    Park {
        reason: &'static str,
    },
}

/// A verdict, about which attempt, and who brings it.
#[derive(Debug, Clone)]
pub struct Finding {
    pub attempt: AttemptId,
    pub verdict: Verdict,
    pub finder: Uuid,
    /// [`crate::attempt::Attempt::taken_until`] of the taking that learned it.
    pub taken_until: OffsetDateTime,
    /// A later attempt that the finder owns and certainly has not sent: `attempt` was looked up on its behalf.
    pub unsent: Option<i32>,
}

/// What a finding led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    Refunded,
    Declined,
    /// Kept open, to be looked at again.
    Postponed,
    Parked,
    /// The row says so already.
    Agreed,
    /// The row says otherwise; there is an audit row about it.
    Disagreed,
    /// The finder no longer owns the attempt; the present owner will learn it too.
    NotOwner,
    /// The rows contradict each other, as after a restored backup. Needs a person.
    Stuck,
}

/// Why a finding was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSettled {
    /// Another transaction holds the return or its order: bring it again.
    Held,
    /// It cannot be written; its row is due at its deadline, and looked up.
    Failed,
}

impl NotSettled {
    pub const ALL: [Self; 2] = [Self::Held, Self::Failed];

    pub fn code(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Failed => "failed",
        }
    }
}

impl Settled {
    pub const ALL: [Self; 8] = [
        Self::Refunded,
        Self::Declined,
        Self::Postponed,
        Self::Parked,
        Self::Agreed,
        Self::Disagreed,
        Self::NotOwner,
        Self::Stuck,
    ];

    pub fn code(self) -> &'static str {
        match self {
            Self::Refunded => "refunded",
            Self::Declined => "declined",
            Self::Postponed => "postponed",
            Self::Parked => "parked",
            Self::Agreed => "agreed",
            Self::Disagreed => "disagreed",
            Self::NotOwner => "not_owner",
            Self::Stuck => "stuck",
        }
    }
}
