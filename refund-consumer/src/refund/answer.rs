//! From a gateway's answer to a verdict, if the answer can be used.

use shared::domain::money::Money;

use crate::gateway::{Answer, CallFailed, Capabilities, Outcome};
use crate::verdict::Verdict;

/// What `refunds.gateway_ref` and `last_error` hold.
const REF_MAX: usize = 128;
const CODE_MAX: usize = 64;

/// The verdict of a looked-up answer. One that does not fit will fit no better next time.
pub(super) fn found(answer: Answer, amount: &Money, can: Capabilities) -> Verdict {
    verdict(answer, amount, can).unwrap_or_else(|reason| Verdict::Park { reason })
}

/// The verdict of a look-up without an answer.
pub(super) fn not_told(failed: CallFailed) -> Verdict {
    match failed {
        CallFailed::Unusable(reason) => Verdict::Park { reason },
        CallFailed::NotSent(error) => Verdict::StillOpen {
            error,
            looked_up: false,
        },
        failed @ (CallFailed::Unknown(_) | CallFailed::KeyReused) => Verdict::StillOpen {
            error: failed.code(),
            looked_up: true,
        },
    }
}

/// # Errors
/// The answer speaks of another amount, names nothing that could be looked up later, or is one that this gateway does
/// not give.
pub(super) fn verdict(
    answer: Answer,
    amount: &Money,
    can: Capabilities,
) -> Result<Verdict, &'static str> {
    let Answer {
        outcome,
        gateway_ref,
        amount: answered,
    } = answer;
    if answered != *amount {
        return Err("mismatched_amount");
    }
    if !is_reference(&gateway_ref) {
        return Err("bad_reference");
    }
    Ok(match outcome {
        Outcome::Succeeded => Verdict::Succeeded { gateway_ref },
        Outcome::Declined { code } => Verdict::Declined {
            gateway_ref,
            code: plain(&code),
        },
        Outcome::Pending if can.asynchronous => Verdict::Pending { gateway_ref },
        Outcome::Pending => return Err("unexpected_pending"),
    })
}

/// What a column holds, a terminal shows and a path segment can name.
fn is_reference(text: &str) -> bool {
    (1..=REF_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && ![".", ".."].contains(&text)
}

/// A provider's code as we store it: what is not plain ASCII could be anything, also personal data.
fn plain(code: &str) -> String {
    let keep = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    code.chars().filter(keep).take(CODE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;
    use shared::domain::money::Currency;

    use super::*;

    #[test]
    fn p5_only_a_gateway_that_settles_later_may_say_pending() {
        let amount = Money::new(Decimal::new(4990, 2), Currency::parse("EUR").expect("EUR"));
        let told = |asynchronous| {
            let answer = Answer {
                outcome: Outcome::Pending,
                gateway_ref: "r1".to_owned(),
                amount: amount.clone(),
            };
            let can = Capabilities {
                native_idempotency: true,
                asynchronous,
            };
            verdict(answer, &amount, can)
        };
        assert_eq!(told(false), Err("unexpected_pending"));
        assert!(matches!(told(true), Ok(Verdict::Pending { .. })));
    }

    #[test]
    fn a_reference_can_be_stored_shown_and_asked_about() {
        for good in ["re_81", "a/b?c", "..."] {
            assert!(is_reference(good), "{good}");
        }
        for bad in ["", ".", "..", "a b", "ä", "a\n", &"x".repeat(REF_MAX + 1)] {
            assert!(!is_reference(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_code_keeps_only_plain_characters() {
        assert_eq!(plain("card_expired"), "card_expired");
        assert_eq!(plain("Müller, Anna <a@b>"), "MllerAnnaab");
        assert_eq!(plain(&"x".repeat(100)).len(), CODE_MAX);
    }
}
