//! A return and its attempts: what a reported outcome changes, and what a person may decide.
//!
//! Pure rules over locked rows. A success counts whichever process reports it. Everything else counts only from the
//! attempt's present owner, because a late report of "declined" or "not sent" may be older than what the present owner
//! has done since.

mod decision;
mod paid;
mod reversal;

use std::time::Duration;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::{Attempt, AttemptState, Outcome, OutcomeReport, ParkReason, Settled, UnusableAnswer};
use crate::domain::eligibility::OrderFacts;
use crate::domain::status::{Action, Status};

pub use decision::{MarkPaid, Refusal};

/// A return and its attempts, as locked; [`RefundState::settle`] changes them in memory.
#[derive(Debug, Clone)]
pub struct RefundState {
    pub status: Status,
    /// Ascending by number.
    pub attempts: Vec<Attempt>,
}

/// What must be written besides the attempts themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct SettleStep {
    pub settled: Settled,
    pub change: Option<(Action, Map<String, Value>)>,
}

/// How long an open attempt waits until it is looked up again. The caller adds the jitter.
#[expect(missing_debug_implementations, reason = "functions")]
#[derive(Clone, Copy)]
pub struct Pauses<'a> {
    /// After this many look-ups.
    pub look_up: &'a dyn Fn(u32) -> Duration,
    /// For an attempt that was not sent: no provider has to be given time for it.
    pub unsent: &'a dyn Fn(u32) -> Duration,
}

/// Uncounted checks do not back off, so they start with the pause of this many look-ups.
const UNCOUNTED: u32 = 4;
/// After this many responses that refused an attempt or could not be understood, a person has to look at it. The pauses
/// between them grow from a second, so a fault that ends within some ten seconds parks nothing.
const REFUSALS_BEFORE_PARKING: i32 = 5;
/// Rows that contradict each other are looked at by a person; until then one look-up an hour is enough.
const STUCK_PAUSE: Duration = Duration::from_secs(3600);

impl RefundState {
    /// Applies a report to the rows in memory. What it refunds is added to
    /// `order`, for the next report about it.
    pub fn settle(
        &mut self,
        report: &OutcomeReport,
        order: &mut OrderFacts,
        now: OffsetDateTime,
        pauses: Pauses<'_>,
    ) -> SettleStep {
        let number = report.attempt.number;
        let Some(at) = self.attempts.iter().position(|row| row.id.number == number) else {
            return only(Settled::Stuck);
        };
        let before = self.attempts.clone();
        let owned = self.attempts[at].is_owned_by(report);
        let is_recheck = owned && self.attempts[at].state == AttemptState::Succeeded;
        if owned
            && !is_recheck
            && let Some(reason) = self.attempts[at].refused(report.outcome.unusable_answer(), now)
        {
            let step = self.park(at, reason);
            return self.applied(step, before, at, now);
        }
        let step = match &report.outcome {
            outcome if is_recheck => self.rechecked(at, outcome, order, now),
            Outcome::Succeeded { gateway_ref } => {
                self.succeeded(at, report, gateway_ref, order, now)
            }
            Outcome::Declined { gateway_ref, code } => self.declined(at, owned, gateway_ref, code),
            _ if !owned => only(Settled::NotOwner),
            // It was paid when it was taken over, and no longer is: somebody has decided about it.
            Outcome::Reversed { .. } => only(Settled::NotOwner),
            Outcome::Pending { gateway_ref } => self.pending(at, gateway_ref, now, pauses),
            Outcome::Unknown { error, .. } => self.unknown(at, error, now, pauses),
            Outcome::NotSent {
                error, never_sent, ..
            } => self.not_sent(at, error, *never_sent, now, pauses),
            Outcome::StillOpen {
                error, looked_up, ..
            } => self.still_open(at, error, *looked_up, now, pauses),
            // The planned look-up may still find it.
            Outcome::Park {
                reason: reason @ ParkReason::NotFound,
            } if self.attempts[at].planned_after(now).is_some() => {
                self.still_open(at, reason.as_str(), true, now, pauses)
            }
            Outcome::Park { reason } => self.park(at, *reason),
        };
        self.applied(step, before, at, now)
    }

    /// Moves the return as the step says; undoes it if the return may not move so.
    fn applied(
        &mut self,
        step: SettleStep,
        before: Vec<Attempt>,
        at: usize,
        now: OffsetDateTime,
    ) -> SettleStep {
        if let Some((action, _)) = &step.change {
            match self.status.after(*action) {
                Ok(status) => self.status = status,
                Err(_) => {
                    self.attempts = before;
                    return self.stuck(at, now);
                }
            }
        }
        step
    }

    fn declined(&mut self, at: usize, owned: bool, gateway_ref: &str, code: &str) -> SettleStep {
        let latest = at + 1 == self.attempts.len();
        let row = &mut self.attempts[at];
        match row.state {
            AttemptState::Declined | AttemptState::Reversed => only(Settled::Agreed),
            AttemptState::Succeeded => self.disagreement(at, "declined"),
            _ if !owned => only(Settled::NotOwner),
            _ => {
                row.close(AttemptState::Declined, Some(gateway_ref));
                row.last_error = Some(code.to_owned());
                let detail = detail(
                    row,
                    &[("gateway", json!(row.gateway)), ("code", json!(code))],
                );
                // An earlier attempt that is declined late changes nothing for the return.
                SettleStep {
                    settled: Settled::Declined,
                    change: latest.then_some((Action::Decline, detail)),
                }
            }
        }
    }

    fn pending(
        &mut self,
        at: usize,
        gateway_ref: &str,
        now: OffsetDateTime,
        pauses: Pauses<'_>,
    ) -> SettleStep {
        let row = &mut self.attempts[at];
        row.state = AttemptState::Pending;
        row.gateway_ref = Some(gateway_ref.to_owned());
        row.last_error = None;
        row.refusals = 0;
        row.provider_answer = None;
        row.postpone(now, (pauses.look_up)(row.looked_up()), true);
        only(Settled::Postponed)
    }

    /// Becoming unknown is a record about the return; a further look-up that brings nothing is not.
    fn unknown(
        &mut self,
        at: usize,
        error: &str,
        now: OffsetDateTime,
        pauses: Pauses<'_>,
    ) -> SettleStep {
        let row = &mut self.attempts[at];
        let new = match row.state {
            AttemptState::Claimed | AttemptState::Sent => true,
            AttemptState::Unknown
            | AttemptState::Pending
            | AttemptState::Succeeded
            | AttemptState::Declined
            | AttemptState::Parked
            | AttemptState::Void
            | AttemptState::Reversed => false,
        };
        if !new {
            return self.still_open(at, error, true, now, pauses);
        }
        // From here on `checks` counts look-ups; until now it counted calls that were not made.
        row.checks = 0;
        row.state = AttemptState::Unknown;
        row.first_sent_at = row.first_sent_at.or(Some(now));
        self.still_open(at, error, true, now, pauses);
        let detail = detail(&self.attempts[at], &[("error", json!(error))]);
        SettleStep {
            settled: Settled::Postponed,
            change: Some((Action::OutcomeUnknown, detail)),
        }
    }

    /// If this very call wrote `sent` and then did not happen, the attempt is unsent again. The same holds for a claimed
    /// attempt that was never called for, so that the lifetime of its key does not begin yet.
    fn not_sent(
        &mut self,
        at: usize,
        error: &str,
        never_sent: bool,
        now: OffsetDateTime,
        pauses: Pauses<'_>,
    ) -> SettleStep {
        let row = &mut self.attempts[at];
        if row.state == AttemptState::Sent || never_sent {
            row.state = AttemptState::Claimed;
            row.first_sent_at = None;
        }
        // Not by look-ups, whose count begins again with each call that may arrive.
        let pause = (pauses.unsent)(u32::try_from(row.tries).unwrap_or(0));
        row.tries = row.tries.saturating_add(1);
        // Counted: an attempt that may have been sent before was looked up before it was to be sent again.
        self.postpone(at, error, now, pause, true)
    }

    /// Only what is counted brings an attempt nearer to a person; what was not looked up is looked up soon.
    fn still_open(
        &mut self,
        at: usize,
        error: &str,
        looked_up: bool,
        now: OffsetDateTime,
        pauses: Pauses<'_>,
    ) -> SettleStep {
        let checks = self.attempts[at].looked_up();
        let pause = if looked_up {
            (pauses.look_up)(checks)
        } else {
            (pauses.unsent)(checks.max(UNCOUNTED))
        };
        self.postpone(at, error, now, pause, looked_up)
    }

    fn postpone(
        &mut self,
        at: usize,
        error: &str,
        now: OffsetDateTime,
        pause: Duration,
        counts: bool,
    ) -> SettleStep {
        let row = &mut self.attempts[at];
        row.last_error = Some(error.to_owned());
        row.postpone(now, pause, counts);
        only(Settled::Postponed)
    }

    fn park(&mut self, at: usize, reason: ParkReason) -> SettleStep {
        let row = &mut self.attempts[at];
        row.park(reason, None);
        let mut detail = detail(row, &[("reason", json!(reason.as_str()))]);
        if let Some(words) = &row.provider_answer {
            detail.insert("provider_answer".to_owned(), json!(words));
        }
        SettleStep {
            settled: Settled::Parked,
            change: Some((Action::Park, detail)),
        }
    }

    /// A late response that contradicts a closed row.
    fn disagreement(&self, at: usize, answer: &str) -> SettleStep {
        let detail = detail(&self.attempts[at], &[("answer", json!(answer))]);
        SettleStep {
            settled: Settled::Disagreed,
            change: Some((Action::Disagreement, detail)),
        }
    }

    fn stuck(&mut self, at: usize, now: OffsetDateTime) -> SettleStep {
        let row = &mut self.attempts[at];
        if row.state.is_open() {
            row.last_error = Some("return_not_pending".to_owned());
            row.check_again(now + STUCK_PAUSE);
        } else if row.recheck_at.is_some() {
            row.recheck_soon(now);
        }
        only(Settled::Stuck)
    }
}

impl Attempt {
    fn is_owned_by(&self, report: &OutcomeReport) -> bool {
        self.owner == Some(report.reporter) && self.call_deadline == Some(report.owned_until)
    }

    /// Counts a response that refused it or was not understood; the reason to park it for, after several.
    fn refused(
        &mut self,
        answer: Option<&UnusableAnswer>,
        now: OffsetDateTime,
    ) -> Option<ParkReason> {
        let answer = answer?;
        self.provider_answer = Some(answer.words.clone());
        let counts = answer.counts && self.planned_after(now).is_none();
        if counts {
            self.refusals = self.refusals.saturating_add(1);
        }
        (self.refusals >= REFUSALS_BEFORE_PARKING && counts).then_some(answer.reason)
    }

    /// Until the pause is over. `counts`: it was looked up, or a call was refused or not made.
    fn postpone(&mut self, now: OffsetDateTime, pause: Duration, counts: bool) {
        let planned = self.planned_after(now).filter(|_| counts);
        self.check_again(planned.unwrap_or(now + pause));
        if counts && planned.is_none() {
            self.checks = self.checks.saturating_add(1);
        }
    }

    fn looked_up(&self) -> u32 {
        u32::try_from(self.checks).unwrap_or(0)
    }

    /// It waits for a person.
    pub fn park(&mut self, reason: ParkReason, gateway_ref: Option<&str>) {
        self.close(AttemptState::Parked, gateway_ref);
        self.last_error = Some(reason.as_str().to_owned());
    }
}

fn only(settled: Settled) -> SettleStep {
    SettleStep {
        settled,
        change: None,
    }
}

fn detail(row: &Attempt, more: &[(&str, Value)]) -> Map<String, Value> {
    let mut detail = Map::new();
    detail.insert("attempt".to_owned(), json!(row.id.number));
    for (name, value) in more {
        detail.insert((*name).to_owned(), value.clone());
    }
    detail
}

#[cfg(test)]
pub(super) mod tests;
