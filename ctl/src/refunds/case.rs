//! A return with its order: what a person may decide about it, for `show` on rows as read and for the commands on rows
//! as locked. The rules are `shared`'s.

use shared::domain::eligibility::OrderFacts;
use shared::domain::ids::{CustomerId, ReturnId};
use shared::domain::money::Money;
use shared::domain::refund::{Attempt, MarkPaid, RefundState};

use crate::text::printable;

/// A return with its order and all its attempts.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) return_id: ReturnId,
    pub(super) customer_id: CustomerId,
    pub(super) version: i32,
    pub(super) refund_amount: Money,
    pub(super) order: OrderFacts,
    pub(super) refund: RefundState,
}

impl Case {
    /// The number of the attempt that follows the failed attempt `number`, or why there may be none.
    pub(super) fn retry(&self, number: i32) -> Result<i32, String> {
        let next = self.refund.retry(number, &self.refund_amount, &self.order);
        next.map_err(|refusal| refusal.to_string())
    }

    /// What marking as paid by attempt `number` would do, or why it may not be done.
    pub(super) fn mark_paid(&self, number: i32) -> Result<MarkPaid<'_>, String> {
        let paid = self.refund.mark_paid(number, &self.order);
        paid.map_err(|refusal| refusal.to_string())
    }

    /// The parked attempt `number` that paid nothing, or why that may not be stated.
    pub(super) fn mark_not_paid(&self, number: i32) -> Result<&Attempt, String> {
        let attempt = self.refund.mark_not_paid(number);
        attempt.map_err(|refusal| refusal.to_string())
    }
}

/// Whether `typed` may be recorded as the attempt's reference: the gateway's own reference takes precedence.
pub(super) fn accepts(paid: &MarkPaid<'_>, typed: Option<&str>) -> Result<(), String> {
    let known = paid.by.gateway_ref.as_deref();
    agree(known, typed).map_err(|known| {
        format!(
            "attempt {} has the reference {} from the gateway, not {}: leave --gateway-ref out, or ask the provider \
             about both",
            paid.by.id.number,
            printable(known),
            typed.unwrap_or_default()
        )
    })
}

/// The known reference, if another one was typed.
fn agree<'a>(known: Option<&'a str>, typed: Option<&str>) -> Result<(), &'a str> {
    match (known, typed) {
        (Some(known), Some(typed)) if known != typed => Err(known),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_own_reference_is_not_replaced() {
        assert_eq!(agree(None, Some("typed")), Ok(()));
        assert_eq!(agree(Some("own"), None), Ok(()));
        assert_eq!(agree(Some("own"), Some("own")), Ok(()));
        assert_eq!(agree(Some("own"), Some("typed")), Err("own"));
    }
}
