//! What a person may decide about a return whose refund did not end by itself.

use time::OffsetDateTime;

use super::RefundState;
use crate::domain::eligibility::OrderFacts;
use crate::domain::ids::OrderId;
use crate::domain::money::Money;
use crate::domain::refund::{Attempt, AttemptState, NoFurther, ParkReason, following};
use crate::domain::status::{Action, Status};

/// Why a decision is not allowed now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it is {status}; {rule}")]
    Status { status: Status, rule: &'static str },
    #[error("it has no attempt")]
    NoAttempt,
    #[error("it has no attempt {0}")]
    NoSuchAttempt(i32),
    #[error("attempt {number} is not its last attempt, which is {last}")]
    NotLast { number: i32, last: i32 },
    #[error("attempt {number} is {}, not parked: the consumer still works on it", .state.as_str())]
    NotParked { number: i32, state: AttemptState },
    #[error("attempt {number} is {}: the consumer still works on it", .state.as_str())]
    StillOpen { number: i32, state: AttemptState },
    #[error("attempt {number} is {}: no consumer would work on it", .state.as_str())]
    NotOpen { number: i32, state: AttemptState },
    #[error(
        "the gateway reported that attempt {paid} has paid, so name that attempt, not attempt {named}"
    )]
    OtherPaid { paid: i32, named: i32 },
    #[error(
        "the gateway reported that attempt {0} has paid, so the return is paid: request that it be marked as paid"
    )]
    HasPaid(i32),
    #[error("{amount} is more than what is left of order {order}: {left} of {total}")]
    MoreThanLeft {
        amount: Money,
        order: OrderId,
        left: Money,
        total: Money,
    },
    #[error("no provider can be asked for {0}: its currency cannot express the amount")]
    NotPayable(Money),
    #[error(transparent)]
    NoFurther(#[from] NoFurther),
}

/// What marking a return as paid does to its attempts.
#[derive(Debug, Clone)]
pub struct MarkPaid<'a> {
    /// The attempt that paid; its amount counts.
    pub by: &'a Attempt,
    /// The other parked attempts. They become void and are never looked up again: marking the return as paid also states
    /// that these did not pay.
    pub superfluous: Vec<&'a Attempt>,
}

impl RefundState {
    /// The number of the attempt that follows the failed attempt `number`.
    ///
    /// # Errors
    /// Another attempt could pay twice, or more than what is left of the order, or its amount cannot be paid.
    pub fn retry(&self, number: i32, amount: &Money, order: &OrderFacts) -> Result<i32, Refusal> {
        self.allows(
            Action::Retry,
            "only a return that is refund_failed is retried",
        )?;
        self.last_is(number)?;
        let next = following(&self.attempts)?;
        affords(order, amount)?;
        if amount.is_payable() {
            Ok(next)
        } else {
            Err(Refusal::NotPayable(amount.clone()))
        }
    }

    /// What marking the return as paid by attempt `number` would do. The order is not asked: what was paid is paid, whatever
    /// the shop has written meanwhile.
    ///
    /// # Errors
    /// A consumer still works on it, or another attempt has paid.
    pub fn mark_paid(&self, number: i32) -> Result<MarkPaid<'_>, Refusal> {
        self.allows(
            Action::MarkPaid,
            "only a return that is refund_pending with a parked attempt, or refund_failed, is marked as paid",
        )?;
        let last = self.last()?;
        if self.status == Status::RefundPending && last.state != AttemptState::Parked {
            return Err(last.not_parked());
        }
        if let Some(open) = self.attempts.iter().find(|one| one.state.is_open()) {
            return Err(Refusal::StillOpen {
                number: open.id.number,
                state: open.state,
            });
        }
        let by = self.attempt(number)?;
        if let Some(paid) = self.reported_paid().filter(|paid| paid.id != by.id) {
            return Err(Refusal::OtherPaid {
                paid: paid.id.number,
                named: number,
            });
        }
        let parked = |one: &&Attempt| one.id != by.id && one.state == AttemptState::Parked;
        let superfluous = self.attempts.iter().filter(parked).collect();
        Ok(MarkPaid { by, superfluous })
    }

    /// The parked attempt `number`, if a person may state that it paid nothing.
    ///
    /// # Errors
    /// It is not parked or not the last one, or the gateway has reported that an attempt paid.
    pub fn mark_not_paid(&self, number: i32) -> Result<&Attempt, Refusal> {
        self.allows(
            Action::MarkNotPaid,
            "only a return that is refund_pending with a parked attempt is marked as not paid",
        )?;
        let last = self.last_is(number)?;
        if last.state != AttemptState::Parked {
            return Err(last.not_parked());
        }
        match self.reported_paid() {
            Some(paid) => Err(Refusal::HasPaid(paid.id.number)),
            None => Ok(last),
        }
    }

    /// The last attempt, if no consumer carries it on any more: a person may park it, and then decide about it.
    ///
    /// # Errors
    /// It is not open or not the last one, or a consumer may still be at work.
    pub fn give_up(&self, number: i32, now: OffsetDateTime) -> Result<&Attempt, Refusal> {
        self.allows(
            Action::Park,
            "only an attempt of a return that is refund_pending is parked",
        )?;
        let (last, state) = (self.last_is(number)?, self.last()?.state);
        if last.is_overdue(now) {
            Ok(last)
        } else if state.is_open() {
            Err(Refusal::StillOpen { number, state })
        } else {
            Err(Refusal::NotOpen { number, state })
        }
    }

    /// The number of the last attempt; 0 if there is none.
    pub fn last_number(&self) -> i32 {
        self.attempts.last().map_or(0, |last| last.id.number)
    }

    fn allows(&self, action: Action, rule: &'static str) -> Result<(), Refusal> {
        match self.status.after(action) {
            Ok(_) => Ok(()),
            Err(refused) => Err(Refusal::Status {
                status: refused.status,
                rule,
            }),
        }
    }

    fn attempt(&self, number: i32) -> Result<&Attempt, Refusal> {
        let mut attempts = self.attempts.iter();
        attempts
            .find(|attempt| attempt.id.number == number)
            .ok_or(Refusal::NoSuchAttempt(number))
    }

    /// The last attempt, if it is the one that is named: what was looked up about another one does not apply to it.
    fn last_is(&self, number: i32) -> Result<&Attempt, Refusal> {
        let (last, named) = (self.last()?, self.attempt(number)?);
        if last.id == named.id {
            return Ok(last);
        }
        Err(Refusal::NotLast {
            number,
            last: last.id.number,
        })
    }

    fn last(&self) -> Result<&Attempt, Refusal> {
        self.attempts.last().ok_or(Refusal::NoAttempt)
    }

    /// The attempt of which the gateway has reported that it paid, while that did not settle the return. If there are
    /// several, the one that is recorded as succeeded.
    fn reported_paid(&self) -> Option<&Attempt> {
        let succeeded = |attempt: &&Attempt| attempt.state == AttemptState::Succeeded;
        let mut attempts = self.attempts.iter();
        self.attempts
            .iter()
            .find(succeeded)
            .or_else(|| attempts.find(|attempt| attempt.is_reported_paid()))
    }
}

impl Attempt {
    fn is_reported_paid(&self) -> bool {
        match self.state {
            AttemptState::Succeeded => true,
            AttemptState::Parked => {
                let reason = self.last_error.as_deref();
                reason
                    .and_then(|reason| reason.parse().ok())
                    .is_some_and(ParkReason::says_paid)
            }
            AttemptState::Claimed
            | AttemptState::Sent
            | AttemptState::Pending
            | AttemptState::Declined
            | AttemptState::Unknown
            | AttemptState::Void
            | AttemptState::Reversed => false,
        }
    }

    fn not_parked(&self) -> Refusal {
        Refusal::NotParked {
            number: self.id.number,
            state: self.state,
        }
    }
}

fn affords(order: &OrderFacts, amount: &Money) -> Result<(), Refusal> {
    if order.covers(amount) {
        return Ok(());
    }
    Err(Refusal::MoreThanLeft {
        amount: amount.clone(),
        order: order.id,
        left: order.refundable(),
        total: order.total.clone(),
    })
}

#[cfg(test)]
mod tests;
