//! The refund of a return, with its order: what a person may decide about it. `show` asks about rows as read, the commands
//! about locked rows; the rules are in `shared::domain::refund`.

use shared::domain::eligibility::OrderFacts;
use shared::domain::ids::{CustomerId, ReturnId};
use shared::domain::money::Money;
use shared::domain::refund::{Attempt, MarkPaid, RefundState};
use time::OffsetDateTime;

use crate::text::printable;

#[derive(Debug, Clone)]
pub(super) struct Refund {
    pub(super) return_id: ReturnId,
    pub(super) customer_id: CustomerId,
    /// The admin who filed it for the customer.
    pub(super) filed_by: Option<i64>,
    pub(super) version: i32,
    pub(super) amount: Money,
    pub(super) order: OrderFacts,
    pub(super) state: RefundState,
}

impl Refund {
    /// The number of the attempt that follows the failed attempt `number`, or why there may be none.
    pub(super) fn retry(&self, number: i32) -> Result<i32, String> {
        let next = self.state.retry(number, &self.amount, &self.order);
        next.map_err(|refusal| refusal.to_string())
    }

    /// The open attempt `number`, if no consumer carries it on, or why it may not be parked.
    pub(super) fn give_up(&self, number: i32, now: OffsetDateTime) -> Result<&Attempt, String> {
        let attempt = self.state.give_up(number, now);
        attempt.map_err(|refusal| refusal.to_string())
    }

    /// What marking as paid by attempt `number` would do, or why it may not be done.
    pub(super) fn mark_paid(&self, number: i32) -> Result<MarkPaid<'_>, String> {
        let paid = self.state.mark_paid(number);
        paid.map_err(|refusal| refusal.to_string())
    }

    /// The parked attempt `number` that paid nothing, or why that may not be stated.
    pub(super) fn mark_not_paid(&self, number: i32) -> Result<&Attempt, String> {
        let attempt = self.state.mark_not_paid(number);
        attempt.map_err(|refusal| refusal.to_string())
    }
}

/// Checks that `typed` may be recorded as the attempt's reference: the gateway's own reference is not replaced.
pub(super) fn accepts(paid: &MarkPaid<'_>, typed: Option<&str>) -> Result<(), String> {
    match (paid.by.gateway_ref.as_deref(), typed) {
        (Some(known), Some(typed)) if known != typed => Err(format!(
            "attempt {} has the reference {} from the gateway, not {typed}: leave --gateway-ref out, or ask the \
             provider about both",
            paid.by.id.number,
            printable(known)
        )),
        _ => Ok(()),
    }
}
