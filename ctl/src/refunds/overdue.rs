//! Attempts that a consumer should have checked long ago: none with the name of their gateway is at work.

use shared::domain::refund::Attempt;
use time::OffsetDateTime;

use crate::text::{printable, span};

/// For how long nobody has checked the attempt; `None` if nobody has to, or not for long enough to be worth a word.
pub(super) fn overdue_secs(attempt: &Attempt, now: OffsetDateTime) -> Option<f64> {
    let due_for = now - attempt.next_check_at;
    attempt.is_overdue(now).then_some(due_for.as_seconds_f64())
}

/// That, for a person.
pub(super) fn note(overdue_secs: f64, gateway: Option<&str>) -> String {
    let of = gateway.map(|name| format!(" of gateway {}", printable(name)));
    format!(
        "due for {}: no refund consumer{} is at work",
        span(overdue_secs),
        of.unwrap_or_default()
    )
}
