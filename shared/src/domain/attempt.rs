//! An attempt to pay a return back, as a row of `refunds` names and keys it.

use std::fmt;

use serde::Serialize;

use crate::domain::ids::{EventId, ReturnId};

/// Why no further attempt may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoFurther {
    #[error("it has no attempt")]
    NoneYet,
    #[error("attempt {number} is {}, so another one could pay twice", .state.as_str())]
    Unsettled { number: i32, state: AttemptState },
    #[error("there are no more numbers for attempts")]
    NoNumber,
}

/// The number of the attempt that may follow these: all of a return's, ascending.
///
/// # Errors
/// There is none yet, or one of them may still pay or has paid.
pub fn following(
    attempts: impl IntoIterator<Item = (i32, AttemptState)>,
) -> Result<i32, NoFurther> {
    let mut last = None;
    for (number, state) in attempts {
        if !matches!(state, AttemptState::Declined | AttemptState::Void) {
            return Err(NoFurther::Unsettled { number, state });
        }
        last = Some(number);
    }
    let last: i32 = last.ok_or(NoFurther::NoneYet)?;
    last.checked_add(1).ok_or(NoFurther::NoNumber)
}

/// A row of `refunds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    pub return_id: ReturnId,
    /// From 1.
    pub number: i32,
}

/// What the gateway knows an attempt by; the same for every repeat of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
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
    pub const ALL: [Self; 8] = [
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn state_names_are_read_back() {
        for state in AttemptState::ALL {
            assert_eq!(AttemptState::parse(state.as_str()), Some(state));
        }
        assert_eq!(AttemptState::parse("paid"), None);
    }

    #[test]
    fn an_attempt_follows_only_those_that_paid_nothing() {
        use AttemptState::{Declined, Void};
        assert_eq!(following([(1, Declined)]), Ok(2));
        assert_eq!(following([(1, Declined), (2, Void), (3, Declined)]), Ok(4));
        assert_eq!(following([]), Err(NoFurther::NoneYet));
        assert_eq!(following([(i32::MAX, Declined)]), Err(NoFurther::NoNumber));
        for state in AttemptState::ALL {
            if !matches!(state, Declined | Void) {
                let unsettled = Err(NoFurther::Unsettled { number: 1, state });
                assert_eq!(following([(1, state), (2, Declined)]), unsettled);
            }
        }
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
