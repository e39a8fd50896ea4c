//! An attempt to pay a return back: a row of `refunds`.

use std::fmt;

use serde::Serialize;
use strum::{EnumIter, EnumString, IntoStaticStr, VariantArray};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::ids::{EventId, ReturnId};
use crate::domain::money::Money;

/// Names one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    pub return_id: ReturnId,
    /// From 1.
    pub number: i32,
}

/// The idempotency key that the payment provider sees; the same for every repeat of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct ProviderKey(pub String);

impl ProviderKey {
    /// Made from the return's first event, not its id: ids repeat after a restored backup, event ids do not.
    pub fn of(first_event: EventId, number: i32) -> Self {
        Self(format!("refund-{first_event}-{number}"))
    }
}

impl fmt::Display for ProviderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The size of `refunds.gateway_ref`.
const GATEWAY_REF_MAX: usize = 128;
/// What [`is_gateway_ref`] requires, for a message.
pub const GATEWAY_REF: &str = "1 to 128 printable ASCII characters without spaces, and not . or ..";

/// Whether the text can be stored as the gateway's own reference, printed, and looked up: it is a segment of a URL's path.
pub fn is_gateway_ref(text: &str) -> bool {
    (1..=GATEWAY_REF_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && ![".", ".."].contains(&text)
}

/// The state of an attempt, as stored.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    EnumIter,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum AttemptState {
    /// Recorded. A gateway with keys may have received it; a gateway without keys has not.
    Claimed,
    /// Sent to a gateway without keys, or about to be.
    Sent,
    /// Accepted by the gateway, not settled there yet.
    Pending,
    Succeeded,
    Declined,
    /// Sent, and the result is not known.
    Unknown,
    /// Waits for a person; the reason is a [`super::ParkReason`].
    Parked,
    /// Closed unsent, because an earlier attempt turned out to have succeeded.
    Void,
    /// Succeeded, and the gateway took it back later: it counts as not paid.
    Reversed,
}

impl AttemptState {
    /// The name, as in the column.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether another attempt may follow it.
    fn paid_nothing(self) -> bool {
        match self {
            Self::Declined | Self::Void | Self::Reversed => true,
            Self::Claimed
            | Self::Sent
            | Self::Pending
            | Self::Unknown
            | Self::Succeeded
            | Self::Parked => false,
        }
    }

    /// Whether somebody still has work to do on the attempt: a consumer, or a person.
    pub fn waits(self) -> bool {
        self.is_open() || self == Self::Parked
    }

    /// Whether a consumer still has work to do on the attempt.
    pub fn is_open(self) -> bool {
        match self {
            Self::Claimed | Self::Sent | Self::Pending | Self::Unknown => true,
            Self::Succeeded | Self::Declined | Self::Parked | Self::Void | Self::Reversed => false,
        }
    }
}

/// A row of `refunds`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub id: AttemptId,
    pub key: ProviderKey,
    pub amount: Money,
    pub state: AttemptState,
    /// The process that may call the gateway for it; `None` if any may take it.
    pub owner: Option<Uuid>,
    /// Until then only the owner may call.
    pub call_deadline: Option<OffsetDateTime>,
    /// When it may have reached the gateway for the first time.
    pub first_sent_at: Option<OffsetDateTime>,
    /// Whether that call carried the key.
    pub sent_with_key: bool,
    pub next_check_at: OffsetDateTime,
    /// When it would be looked up, had no notification of the gateway brought that forward.
    pub planned_check_at: Option<OffsetDateTime>,
    /// Look-ups so far.
    pub checks: i32,
    /// Calls that were refused or not made.
    pub tries: i32,
    /// Responses that refused it or could not be understood.
    pub refusals: i32,
    /// The last of them: its status and codes.
    pub provider_answer: Option<String>,
    pub gateway: Option<String>,
    pub gateway_ref: Option<String>,
    pub last_error: Option<String>,
    /// When the gateway reported that it has paid; `None` if it has not, or if people marked it as paid.
    pub succeeded_at: Option<OffsetDateTime>,
    /// When a paid attempt is looked up again; `None` if it is not.
    pub recheck_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// The `last_error` of an attempt that people have marked as not paid. No provider's code is stored as this.
pub const MARKED_NOT_PAID: &str = "marked_not_paid";

/// A consumer checks an attempt within seconds of its due time; promise P6 allows five minutes.
pub const OVERDUE: time::Duration = time::Duration::minutes(5);

impl Attempt {
    /// Whether a consumer should have checked it long ago: none that may is at work.
    pub fn is_overdue(&self, now: OffsetDateTime) -> bool {
        self.state.is_open() && now - self.next_check_at > OVERDUE
    }

    /// Whether only another gateway than `name` can know whether it paid.
    pub fn belongs_to_another(&self, name: &str) -> bool {
        let unsent = match self.state {
            AttemptState::Claimed => self.first_sent_at.is_none(),
            // Closed unsent, or two persons stated that it did not pay.
            AttemptState::Void => true,
            AttemptState::Sent
            | AttemptState::Pending
            | AttemptState::Succeeded
            | AttemptState::Declined
            | AttemptState::Unknown
            | AttemptState::Parked
            | AttemptState::Reversed => false,
        };
        !unsent && self.gateway.as_deref().is_some_and(|own| own != name)
    }

    /// Whether people have stated that it paid nothing.
    pub fn is_marked_not_paid(&self) -> bool {
        self.state == AttemptState::Declined && self.last_error.as_deref() == Some(MARKED_NOT_PAID)
    }

    /// Ends it in `state`; without an owner, no consumer calls the gateway for it again. A payment has a date only if the
    /// gateway reported it (`Attempt::succeed`).
    pub fn close(&mut self, state: AttemptState, gateway_ref: Option<&str>) {
        self.state = state;
        self.owner = None;
        self.call_deadline = None;
        self.recheck_at = None;
        self.planned_check_at = None;
        if state != AttemptState::Reversed {
            self.succeeded_at = None;
        }
        if let Some(gateway_ref) = gateway_ref {
            self.gateway_ref = Some(gateway_ref.to_owned());
        }
        if state == AttemptState::Succeeded {
            self.last_error = None;
            self.provider_answer = None;
        }
    }

    /// The call is over, so any process may take it from `at` on.
    pub(super) fn check_again(&mut self, at: OffsetDateTime) {
        self.owner = None;
        self.call_deadline = None;
        let planned = self.planned_check_at.take();
        self.planned_check_at = planned.filter(|planned| *planned > at);
        self.next_check_at = at;
    }

    /// Whether a notification has brought the look-up forward. Then it counts for nothing, and the planned one follows:
    /// otherwise a provider that repeats its notifications would use up the look-ups that it is given.
    pub(super) fn planned_after(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.planned_check_at.filter(|planned| *planned > now)
    }
}

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
pub fn following<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> Result<i32, NoFurther> {
    let mut last = None;
    for Attempt { id, state, .. } in attempts {
        if !state.paid_nothing() {
            return Err(NoFurther::Unsettled {
                number: id.number,
                state: *state,
            });
        }
        last = Some(id.number);
    }
    let last: i32 = last.ok_or(NoFurther::NoneYet)?;
    last.checked_add(1).ok_or(NoFurther::NoNumber)
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::super::state::tests::row;
    use super::*;

    #[test]
    fn state_names_are_read_back() {
        for state in AttemptState::iter() {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("paid".parse::<AttemptState>().is_err());
    }

    #[test]
    fn an_attempt_follows_only_those_that_paid_nothing() {
        use AttemptState::{Declined, Reversed, Void};
        let next = |rows: &[(i32, AttemptState)]| {
            let rows: Vec<Attempt> = rows.iter().map(|(n, s)| row(*n, *s, None)).collect();
            following(&rows)
        };
        assert_eq!(next(&[(1, Declined)]), Ok(2));
        assert_eq!(next(&[(1, Declined), (2, Void), (3, Declined)]), Ok(4));
        assert_eq!(next(&[(1, Reversed)]), Ok(2));
        assert_eq!(next(&[]), Err(NoFurther::NoneYet));
        assert_eq!(next(&[(i32::MAX, Declined)]), Err(NoFurther::NoNumber));
        for state in AttemptState::iter() {
            if !matches!(state, Declined | Void | Reversed) {
                let unsettled = Err(NoFurther::Unsettled { number: 1, state });
                assert_eq!(next(&[(1, state), (2, Declined)]), unsettled);
            }
        }
    }

    #[test]
    fn p5_what_was_never_sent_belongs_to_no_account() {
        for state in AttemptState::iter() {
            let mut attempt = row(1, state, None);
            assert!(!attempt.belongs_to_another("fake"), "{state:?}");
            assert_eq!(
                attempt.belongs_to_another("other"),
                state != AttemptState::Void
            );
            attempt.first_sent_at = None;
            let unsent = matches!(state, AttemptState::Void | AttemptState::Claimed);
            assert_eq!(attempt.belongs_to_another("other"), !unsent, "{state:?}");
        }
    }

    #[test]
    fn a_reference_can_be_stored_printed_and_looked_up() {
        for good in ["re_81", "a/b?c", "..."] {
            assert!(is_gateway_ref(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a b",
            "ä",
            "a\n",
            &"x".repeat(GATEWAY_REF_MAX + 1),
        ] {
            assert!(!is_gateway_ref(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_key_fits_its_column_for_any_attempt() {
        let key = ProviderKey::of(EventId(Uuid::nil()), i32::MAX);
        assert_eq!(
            key.0,
            "refund-00000000-0000-0000-0000-000000000000-2147483647"
        );
        assert!(key.0.len() <= 64);
    }
}
