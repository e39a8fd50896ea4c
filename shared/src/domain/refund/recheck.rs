//! When a payment is looked up again: a provider can take a refund back days after it has reported it as paid, for example
//! because the customer's account is closed.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Attempt, AttemptState};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// After the payment. Most refunds that fail do so within days, and providers name 30 days as the longest time
/// (<https://docs.stripe.com/refunds#failed-refunds>), so the distances grow.
pub const RECHECKS: [Duration; 6] = [
    HOUR,
    DAY,
    Duration::from_secs(3 * 24 * 3_600),
    Duration::from_secs(7 * 24 * 3_600),
    Duration::from_secs(14 * 24 * 3_600),
    Duration::from_secs(30 * 24 * 3_600),
];

/// For a look-up that was not made, and for a reversal that has to wait.
const RETRY: Duration = HOUR;

/// The first look-up of a payment made at `succeeded_at` that is after `now`.
fn next_recheck(succeeded_at: OffsetDateTime, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let dates = RECHECKS.iter().map(|after| succeeded_at + *after);
    dates.into_iter().find(|at| *at > now)
}

impl Attempt {
    /// The provider has paid it.
    pub(super) fn succeed(&mut self, gateway_ref: &str, now: OffsetDateTime) {
        self.close(AttemptState::Succeeded, Some(gateway_ref));
        self.succeeded_at = Some(now);
        self.recheck_at = next_recheck(now, now);
    }

    /// The look-up was made: the next one follows by the calendar.
    pub(super) fn rechecked(&mut self, now: OffsetDateTime) {
        let next = self.succeeded_at.and_then(|at| next_recheck(at, now));
        self.recheck_next(next);
    }

    /// The look-up has to be made again soon.
    pub(super) fn recheck_soon(&mut self, now: OffsetDateTime) {
        self.recheck_next(Some(now + RETRY));
    }

    /// Gives the attempt back. Its owner has set `recheck_at` to the call's deadline: another value is a notification that
    /// came during the look-up, which may have been too early to see what it was about.
    fn recheck_next(&mut self, next: Option<OffsetDateTime>) {
        let is_notified = self.call_deadline.is_some() && self.recheck_at != self.call_deadline;
        if !is_notified {
            self.recheck_at = next;
        }
        self.owner = None;
        self.call_deadline = None;
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::super::state::tests::row;
    use super::*;

    const PAID: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);

    #[test]
    fn look_ups_become_rarer_and_end_after_30_days() {
        let mut attempt = row(1, AttemptState::Claimed, None);
        attempt.succeed("ref", PAID);
        let mut dates = Vec::new();
        while let Some(at) = attempt.recheck_at {
            dates.push(at - PAID);
            attempt.rechecked(at);
        }
        assert_eq!(
            dates,
            RECHECKS.map(|after| time::Duration::try_from(after).expect("small"))
        );
        assert_eq!(dates.last(), Some(&time::Duration::days(30)));
    }

    /// Otherwise a provider that sends many notifications would use up the look-ups of 30 days.
    #[test]
    fn an_additional_look_up_moves_no_other() {
        let mut attempt = row(1, AttemptState::Claimed, None);
        attempt.succeed("ref", PAID);
        for _ in 0..10 {
            attempt.rechecked(PAID + Duration::from_secs(60));
        }
        assert_eq!(attempt.recheck_at, Some(PAID + HOUR));
        attempt.rechecked(PAID + DAY * 2);
        assert_eq!(attempt.recheck_at, Some(PAID + DAY * 3));
    }

    #[test]
    fn a_notification_during_the_look_up_is_not_lost() {
        let mut attempt = row(1, AttemptState::Claimed, None);
        attempt.succeed("ref", PAID);
        attempt.call_deadline = Some(PAID + HOUR * 2);
        attempt.recheck_at = attempt.call_deadline;
        let mut notified = attempt.clone();
        notified.recheck_at = Some(PAID + HOUR);
        for attempt in [&mut attempt, &mut notified] {
            attempt.rechecked(PAID + HOUR);
        }
        assert_eq!(attempt.recheck_at, Some(PAID + DAY));
        assert_eq!(notified.recheck_at, Some(PAID + HOUR), "due at once");
    }
}
