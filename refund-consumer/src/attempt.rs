//! An attempt to pay a return back: the words that claim, call and settlement share.

use std::fmt;
use std::time::Instant;

use shared::ids::{EventId, OrderId, ReturnId};
use shared::money::Money;
use shared::trace_context::TraceContext;
use time::OffsetDateTime;
use uuid::Uuid;

/// A row of `refunds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    pub return_id: ReturnId,
    /// From 1.
    pub number: i32,
}

/// What the gateway knows an attempt by; the same for every repeat of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(pub String);

impl IdempotencyKey {
    /// Made from the return's first event, not its id: ids repeat after a restored backup, event ids do not.
    pub fn of(first_event: EventId, number: i32) -> Self {
        Self(format!("refund-{first_event}-{number}"))
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptState {
    /// Recorded. At a gateway with keys it may have been sent; at one without it was not.
    Claimed,
    /// About to be sent, or sent, to a gateway without keys.
    Sent,
    /// Accepted by the gateway, not settled there yet.
    Pending,
    Succeeded,
    Declined,
    /// Sent, and the answer is not known.
    Unknown,
    /// Waits for a person.
    Parked,
    /// Closed unsent, because an earlier attempt turned out to have succeeded.
    Void,
}

impl AttemptState {
    const ALL: [Self; 8] = [
        Self::Claimed,
        Self::Sent,
        Self::Pending,
        Self::Succeeded,
        Self::Declined,
        Self::Unknown,
        Self::Parked,
        Self::Void,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Sent => "sent",
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Declined => "declined",
            Self::Unknown => "unknown",
            Self::Parked => "parked",
            Self::Void => "void",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether a consumer still has something to do about it.
    pub fn is_open(self) -> bool {
        match self {
            Self::Claimed | Self::Sent | Self::Pending | Self::Unknown => true,
            Self::Succeeded | Self::Declined | Self::Parked | Self::Void => false,
        }
    }
}

/// An attempt as stored, locked by the transaction that read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub id: AttemptId,
    pub state: AttemptState,
    /// Who may call the gateway for it; free when `None`.
    pub owner: Option<Uuid>,
    pub call_deadline: Option<OffsetDateTime>,
    pub first_sent_at: Option<OffsetDateTime>,
    pub next_check_at: OffsetDateTime,
    /// Look-ups and polls so far.
    pub checks: i32,
    pub amount: Money,
    pub gateway: Option<String>,
    pub gateway_ref: Option<String>,
    pub last_error: Option<String>,
}

/// An attempt this process owns and has to carry to an outcome.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub id: AttemptId,
    pub order_id: OrderId,
    pub key: IdempotencyKey,
    pub amount: Money,
    pub known: Known,
    /// Our own clock's reading of `call_deadline`, counted from before it was written: at or before it.
    pub deadline: Instant,
    /// The trace of the message; without one the return's own trace is continued.
    pub trace: Option<TraceContext>,
}

/// What the row tells about the gateway's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// We claimed it just now: nobody can have sent it.
    Fresh,
    /// Taken over. It was certainly not sent, but `find` is asked first all the same.
    Unsent,
    /// Taken over, and it may have been sent. `may_resend`: with the same key, within the key's lifetime.
    MaybeSent { may_resend: bool, checks: i32 },
    /// Taken over; the gateway has accepted it.
    Pending { gateway_ref: String },
}

impl Known {
    /// Whether the call about to be made is the attempt's first for certain.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Fresh | Self::Unsent => true,
            Self::MaybeSent { .. } | Self::Pending { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_names_are_read_back() {
        for state in AttemptState::ALL {
            assert_eq!(AttemptState::parse(state.as_str()), Some(state));
        }
        assert_eq!(AttemptState::parse("paid"), None);
    }

    #[test]
    fn a_key_fits_its_column_for_any_attempt() {
        let key = IdempotencyKey::of(EventId(Uuid::nil()), i32::MAX);
        assert_eq!(
            key.0,
            "refund-00000000-0000-0000-0000-000000000000-2147483647"
        );
        assert!(key.0.len() <= 64);
    }
}
