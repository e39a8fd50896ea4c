//! From a gateway's response to an outcome, if the response can be used.

use shared::domain::money::Money;
use shared::domain::refund::{MARKED_NOT_PAID, Outcome, ParkReason, is_gateway_ref};

use crate::gateway::{Capabilities, ProviderRefund, RefundStatus};

/// The size of `refunds.last_error`.
const CODE_MAX: usize = 64;

/// The outcome of a submitted refund. An unusable response leaves it unknown: a look-up may bring a usable one.
pub(super) fn submitted(refund: ProviderRefund, amount: &Money, can: Capabilities) -> Outcome {
    outcome(refund, amount, can).unwrap_or_else(|reason| Outcome::Unknown {
        error: reason.as_str(),
        answer: None,
    })
}

/// The outcome of a look-up. An unusable response would be the same next time.
pub(super) fn looked_up(refund: ProviderRefund, amount: &Money, can: Capabilities) -> Outcome {
    outcome(refund, amount, can).unwrap_or_else(|reason| Outcome::Park { reason })
}

/// # Errors
/// The response is about another amount, has no reference that could be looked up later, or is one that this gateway
/// does not give.
fn outcome(
    refund: ProviderRefund,
    amount: &Money,
    can: Capabilities,
) -> Result<Outcome, ParkReason> {
    let gateway_ref = refund.gateway_ref;
    if refund.amount != *amount {
        return Err(ParkReason::MismatchedAmount);
    }
    if !is_gateway_ref(&gateway_ref) {
        return Err(ParkReason::BadReference);
    }
    Ok(match refund.status {
        RefundStatus::Succeeded => Outcome::Succeeded { gateway_ref },
        RefundStatus::Declined { code } => Outcome::Declined {
            gateway_ref,
            code: plain(&code),
        },
        RefundStatus::Pending if can.asynchronous => Outcome::Pending { gateway_ref },
        RefundStatus::Pending => return Err(ParkReason::UnexpectedPending),
    })
}

/// A provider's code as we store it: other characters than these could be anything, also personal data.
fn plain(code: &str) -> String {
    let keep = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    let kept: String = code.chars().filter(keep).take(CODE_MAX).collect();
    // That is what people say, not a provider.
    if kept == MARKED_NOT_PAID {
        return String::new();
    }
    kept
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;
    use shared::domain::money::Currency;

    use super::*;

    #[test]
    fn p5_only_a_gateway_that_settles_later_may_report_pending() {
        let amount = Money::new(Decimal::new(4990, 2), Currency::parse("EUR").expect("EUR"));
        let reported = |asynchronous| {
            let refund = ProviderRefund {
                status: RefundStatus::Pending,
                gateway_ref: "r1".to_owned(),
                amount: amount.clone(),
            };
            let can = Capabilities {
                native_idempotency: true,
                asynchronous,
            };
            outcome(refund, &amount, can)
        };
        assert_eq!(reported(false), Err(ParkReason::UnexpectedPending));
        assert!(matches!(reported(true), Ok(Outcome::Pending { .. })));
    }

    #[test]
    fn a_code_keeps_only_plain_characters() {
        assert_eq!(plain("card_expired"), "card_expired");
        assert_eq!(plain("Müller, Anna <a@b>"), "MllerAnnaab");
        assert_eq!(plain(&"x".repeat(100)).len(), CODE_MAX);
        assert_eq!(plain("marked_not_paid"), "", "a person's word");
    }
}
