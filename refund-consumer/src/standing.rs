//! What a finding means for the locked rows: the pure half of a settlement.
//!
//! A success counts whoever brings it; everything else counts only from the attempt's present owner, because a late
//! owner's "declined" or "not sent" may be older than what the present owner has done since.

mod paid;

use std::time::Duration;

use serde_json::{Map, Value, json};
use shared::domain::eligibility::OrderFacts;
use shared::domain::status::{Action, Status};
use shared::runtime::retry::full_jitter;
use time::OffsetDateTime;

use crate::attempt::{AttemptState, Recorded};
use crate::verdict::{Finding, Settled, Verdict};

/// A return and its attempts, as locked; [`Standing::judge`] moves them in memory.
#[derive(Debug, Clone)]
pub struct Standing {
    pub status: Status,
    /// Ascending by number.
    pub attempts: Vec<Recorded>,
}

/// What must be written besides the attempts themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    pub settled: Settled,
    pub change: Option<(Action, Map<String, Value>)>,
}

/// How long until an open attempt is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub base: Duration,
    pub cap: Duration,
}

/// What was not sent waits for nobody's answer.
const UNSENT: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
};
/// What does not count does not become rarer, so it waits from the beginning as after so many tries.
const UNCOUNTED: i32 = 4;
/// Rows that contradict each other are looked at by a person; until then they are not worth a look-up per minute.
const STUCK_PAUSE: Duration = Duration::from_secs(3600);

impl Backoff {
    /// Between once and twice the base at first, doubling with every check.
    fn next(self, now: OffsetDateTime, checks: i32) -> OffsetDateTime {
        let done = u32::try_from(checks).unwrap_or(0);
        now + self.base + full_jitter(done, self.base, self.cap - self.base)
    }

    /// Of both the quicker.
    fn at_most(self, other: Self) -> Self {
        Self {
            base: self.base.min(other.base),
            cap: self.cap.min(other.cap),
        }
    }
}

impl Standing {
    /// Applies a finding to the rows in memory. `order` is where the money is counted.
    pub fn judge(
        &mut self,
        finding: &Finding,
        order: &mut OrderFacts,
        now: OffsetDateTime,
        backoff: Backoff,
    ) -> Judgement {
        let number = finding.attempt.number;
        let Some(at) = self.attempts.iter().position(|row| row.id.number == number) else {
            return only(Settled::Stuck);
        };
        let before = self.attempts.clone();
        let row = &self.attempts[at];
        let owned = row.state.is_open()
            && row.owner == Some(finding.finder)
            && row.call_deadline == Some(finding.taken_until);
        let judgement = match &finding.verdict {
            Verdict::Succeeded { gateway_ref } => {
                self.succeeded(at, finding, gateway_ref, order, now)
            }
            Verdict::Declined { gateway_ref, code } => self.declined(at, owned, gateway_ref, code),
            _ if !owned => only(Settled::NotOwner),
            Verdict::Pending { gateway_ref } => self.pending(at, gateway_ref, now, backoff),
            Verdict::Unknown { error } => self.unknown(at, error, now, backoff),
            Verdict::NotSent { error, never_sent } => {
                self.not_sent(at, error, *never_sent, now, backoff)
            }
            Verdict::StillOpen { error, looked_up } => {
                self.postpone(at, error, *looked_up, now, backoff)
            }
            Verdict::Park { reason } => self.park(at, reason),
        };
        if let Some((action, _)) = &judgement.change {
            match self.status.after(*action) {
                Ok(status) => self.status = status,
                Err(_) => {
                    self.attempts = before;
                    return self.stuck(at, now);
                }
            }
        }
        judgement
    }

    fn declined(&mut self, at: usize, owned: bool, gateway_ref: &str, code: &str) -> Judgement {
        let latest = at + 1 == self.attempts.len();
        let row = &mut self.attempts[at];
        match row.state {
            AttemptState::Declined => only(Settled::Agreed),
            AttemptState::Succeeded => self.compare(at, false, "declined"),
            _ if !owned => only(Settled::NotOwner),
            _ => {
                row.close(AttemptState::Declined, Some(gateway_ref));
                row.last_error = Some(code.to_owned());
                let detail = detail(
                    row,
                    &[("gateway", json!(row.gateway)), ("code", json!(code))],
                );
                // An earlier attempt that is declined late changes nothing for the return.
                Judgement {
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
        backoff: Backoff,
    ) -> Judgement {
        let row = &mut self.attempts[at];
        row.state = AttemptState::Pending;
        row.gateway_ref = Some(gateway_ref.to_owned());
        row.last_error = None;
        row.look_again(backoff.next(now, row.checks));
        row.checks = row.checks.saturating_add(1);
        only(Settled::Postponed)
    }

    /// Becoming unknown is a record about the return; a further look-up that tells nothing is not.
    fn unknown(
        &mut self,
        at: usize,
        error: &str,
        now: OffsetDateTime,
        backoff: Backoff,
    ) -> Judgement {
        let row = &mut self.attempts[at];
        let new = match row.state {
            AttemptState::Claimed | AttemptState::Sent => true,
            AttemptState::Unknown
            | AttemptState::Pending
            | AttemptState::Succeeded
            | AttemptState::Declined
            | AttemptState::Parked
            | AttemptState::Void => false,
        };
        if !new {
            return self.postpone(at, error, true, now, backoff);
        }
        let row = &mut self.attempts[at];
        // From here on they count look-ups; until now, calls that were not made.
        row.checks = 0;
        self.postpone(at, error, true, now, backoff);
        let row = &mut self.attempts[at];
        row.state = AttemptState::Unknown;
        row.first_sent_at = row.first_sent_at.or(Some(now));
        Judgement {
            settled: Settled::Postponed,
            change: Some((
                Action::OutcomeUnknown,
                detail(row, &[("error", json!(error))]),
            )),
        }
    }

    /// `sent` was written by this very call, which then did not happen: the attempt is unsent again. So is a claimed one
    /// that nobody has called for before, so that its key's lifetime does not begin yet.
    fn not_sent(
        &mut self,
        at: usize,
        error: &str,
        never_sent: bool,
        now: OffsetDateTime,
        backoff: Backoff,
    ) -> Judgement {
        let row = &mut self.attempts[at];
        if row.state == AttemptState::Sent || never_sent {
            row.state = AttemptState::Claimed;
            row.first_sent_at = None;
        }
        // Counted: what may have been sent before was looked up before it was to be sent again.
        self.postpone(at, error, true, now, backoff.at_most(UNSENT))
    }

    /// Only what is counted brings an attempt nearer to a person; what was not looked up is looked up soon.
    fn postpone(
        &mut self,
        at: usize,
        error: &str,
        counts: bool,
        now: OffsetDateTime,
        backoff: Backoff,
    ) -> Judgement {
        let row = &mut self.attempts[at];
        row.last_error = Some(error.to_owned());
        if counts {
            row.look_again(backoff.next(now, row.checks));
            row.checks = row.checks.saturating_add(1);
        } else {
            row.look_again(backoff.at_most(UNSENT).next(now, row.checks.max(UNCOUNTED)));
        }
        only(Settled::Postponed)
    }

    fn park(&mut self, at: usize, reason: &str) -> Judgement {
        let row = &mut self.attempts[at];
        row.close(AttemptState::Parked, None);
        row.last_error = Some(reason.to_owned());
        Judgement {
            settled: Settled::Parked,
            change: Some((Action::Park, detail(row, &[("reason", json!(reason))]))),
        }
    }

    /// A late answer beside a closed row.
    fn compare(&self, at: usize, agrees: bool, answer: &str) -> Judgement {
        if agrees {
            only(Settled::Agreed)
        } else {
            self.disagreement(at, answer)
        }
    }

    fn disagreement(&self, at: usize, answer: &str) -> Judgement {
        let row = &self.attempts[at];
        Judgement {
            settled: Settled::Disagreed,
            change: Some((
                Action::Disagreement,
                detail(row, &[("answer", json!(answer))]),
            )),
        }
    }

    fn stuck(&mut self, at: usize, now: OffsetDateTime) -> Judgement {
        let row = &mut self.attempts[at];
        if row.state.is_open() {
            row.last_error = Some("return_not_pending".to_owned());
            row.look_again(now + STUCK_PAUSE);
        }
        only(Settled::Stuck)
    }
}

impl Recorded {
    fn close(&mut self, state: AttemptState, gateway_ref: Option<&str>) {
        self.state = state;
        self.owner = None;
        self.call_deadline = None;
        if let Some(gateway_ref) = gateway_ref {
            self.gateway_ref = Some(gateway_ref.to_owned());
        }
        if state == AttemptState::Succeeded {
            self.last_error = None;
        }
    }

    /// The call is over, so anyone may look next, at `at`.
    fn look_again(&mut self, at: OffsetDateTime) {
        self.owner = None;
        self.call_deadline = None;
        self.next_check_at = at;
    }
}

fn only(settled: Settled) -> Judgement {
    Judgement {
        settled,
        change: None,
    }
}

fn detail(row: &Recorded, more: &[(&str, Value)]) -> Map<String, Value> {
    let mut detail = Map::new();
    detail.insert("attempt".to_owned(), json!(row.id.number));
    for (name, value) in more {
        detail.insert((*name).to_owned(), value.clone());
    }
    detail
}

#[cfg(test)]
mod tests;
