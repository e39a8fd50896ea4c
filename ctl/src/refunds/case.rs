//! What a person may decide about a return: the pure half, asked by `show` of rows as read and by the commands of rows
//! as locked.

use shared::domain::attempt::{AttemptState, following};
use shared::domain::eligibility::{OrderFacts, refundable};
use shared::domain::ids::{CustomerId, ReturnId};
use shared::domain::money::Money;
use shared::domain::status::{Action, Status};

use crate::store::refunds::Attempt;
use crate::text::printable;

/// A return with its order and all its attempts.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) return_id: ReturnId,
    pub(super) customer_id: CustomerId,
    pub(super) status: Status,
    pub(super) version: i32,
    pub(super) refund_amount: Money,
    pub(super) order: OrderFacts,
    /// Ascending by number.
    pub(super) attempts: Vec<Attempt>,
}

/// What marking as paid does to the attempts.
#[derive(Debug, Clone)]
pub(super) struct Paid<'a> {
    /// The attempt that paid; its amount counts.
    pub(super) by: &'a Attempt,
    /// The other parked attempts. They become void, and nobody looks at them again: who marks the return as paid says
    /// that these did not pay.
    pub(super) superfluous: Vec<&'a Attempt>,
}

/// Why the consumer parks an attempt of which the gateway has said that it paid.
const TOLD_PAID: [&str; 3] = ["paid_more_than_order_total", "paid_twice", "several_found"];

impl Case {
    /// The number of the attempt that follows the failed attempt `number`, or why there may be none.
    pub(super) fn retry(&self, number: i32) -> Result<i32, String> {
        self.allows(
            Action::Retry,
            "only a return that is refund_failed is retried",
        )?;
        self.last_is(number)?;
        let attempts = self.attempts.iter();
        let next = following(attempts.map(|attempt| (attempt.id.number, attempt.state)));
        let next = next.map_err(|why| why.to_string())?;
        self.affords(&self.refund_amount)?;
        Ok(next)
    }

    /// What marking as paid by attempt `number` would do, or why it may not be done.
    pub(super) fn mark_paid(&self, number: i32) -> Result<Paid<'_>, String> {
        self.allows(
            Action::MarkPaid,
            "only a return that is refund_pending with a parked attempt, or refund_failed, is marked as paid",
        )?;
        let last = self.last()?;
        if self.status == Status::RefundPending && last.state != AttemptState::Parked {
            return Err(format!(
                "attempt {} is {}, not parked: the consumer still works on it",
                last.id.number,
                last.state.as_str()
            ));
        }
        if let Some(open) = self.attempts.iter().find(|one| one.state.is_open()) {
            return Err(format!(
                "attempt {} is {}: the consumer still works on it",
                open.id.number,
                open.state.as_str()
            ));
        }
        let by = self.attempt(number)?;
        if let Some(paid) = self.told_paid().filter(|paid| paid.id != by.id) {
            return Err(format!(
                "the gateway told that attempt {} has paid, so it is the one to be named, not attempt {number}",
                paid.id.number
            ));
        }
        self.affords(&by.amount)?;
        let parked = |one: &&Attempt| one.id != by.id && one.state == AttemptState::Parked;
        let superfluous = self.attempts.iter().filter(parked).collect();
        Ok(Paid { by, superfluous })
    }

    /// The parked attempt `number` that paid nothing, or why that may not be said.
    pub(super) fn mark_not_paid(&self, number: i32) -> Result<&Attempt, String> {
        self.allows(
            Action::MarkNotPaid,
            "only a return that is refund_pending with a parked attempt is marked as not paid",
        )?;
        let last = self.last_is(number)?;
        if last.state != AttemptState::Parked {
            return Err(format!(
                "attempt {number} is {}, not parked: the consumer still works on it",
                last.state.as_str()
            ));
        }
        match self.told_paid() {
            Some(paid) => Err(format!(
                "the gateway told that attempt {} has paid, so the return is paid: request that it be marked so",
                paid.id.number
            )),
            None => Ok(last),
        }
    }

    fn allows(&self, action: Action, rule: &str) -> Result<(), String> {
        match self.status.after(action) {
            Ok(_) => Ok(()),
            Err(refused) => Err(format!("it is {}; {rule}", refused.status)),
        }
    }

    /// The number of the last attempt; 0 if there is none.
    pub(super) fn last_number(&self) -> i32 {
        self.attempts.last().map_or(0, |last| last.id.number)
    }

    fn attempt(&self, number: i32) -> Result<&Attempt, String> {
        let mut attempts = self.attempts.iter();
        attempts
            .find(|attempt| attempt.id.number == number)
            .ok_or_else(|| format!("it has no attempt {number}"))
    }

    /// The last attempt, if it is the one that is meant: what was looked up about another says nothing of it.
    fn last_is(&self, number: i32) -> Result<&Attempt, String> {
        let (last, meant) = (self.last()?, self.attempt(number)?);
        if last.id == meant.id {
            return Ok(last);
        }
        Err(format!(
            "attempt {number} is not its last attempt, which is {}",
            last.id.number
        ))
    }

    fn last(&self) -> Result<&Attempt, String> {
        let last = self.attempts.last();
        last.ok_or_else(|| "it has no attempt".to_owned())
    }

    /// The attempt that has paid by the gateway's word, while the return was not settled by it; of several the one that
    /// is recorded as succeeded.
    fn told_paid(&self) -> Option<&Attempt> {
        let succeeded = |attempt: &&Attempt| attempt.state == AttemptState::Succeeded;
        let mut attempts = self.attempts.iter();
        self.attempts
            .iter()
            .find(succeeded)
            .or_else(|| attempts.find(|attempt| attempt.is_told_paid()))
    }

    fn affords(&self, amount: &Money) -> Result<(), String> {
        if self.order.covers(amount) {
            return Ok(());
        }
        let left = refundable(&self.order);
        let left = left.map_or_else(|| "an unknown amount".to_owned(), |left| left.to_string());
        Err(format!(
            "{amount} is more than what is left of order {}: {left} of {}",
            self.order.id, self.order.total
        ))
    }
}

impl Attempt {
    /// Whether the gateway has said that it paid, though the return could not be settled by it.
    fn is_told_paid(&self) -> bool {
        let parked_because = |reason: &&str| self.last_error.as_deref() == Some(reason);
        match self.state {
            AttemptState::Succeeded => true,
            AttemptState::Parked => TOLD_PAID.iter().any(parked_because),
            AttemptState::Claimed
            | AttemptState::Sent
            | AttemptState::Pending
            | AttemptState::Declined
            | AttemptState::Unknown
            | AttemptState::Void => false,
        }
    }
}

impl Paid<'_> {
    /// Whether `typed` may stand for the attempt's reference: the gateway's own goes before what people type.
    pub(super) fn accepts(&self, typed: Option<&str>) -> Result<(), String> {
        match (self.by.gateway_ref.as_deref(), typed) {
            (Some(known), Some(typed)) if known != typed => Err(format!(
                "attempt {} has the reference {} from the gateway, not {typed}: leave --gateway-ref out, or ask the \
                 provider about both",
                self.by.id.number,
                printable(known)
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
