//! From a gateway's answer to a verdict, if the answer can be used.

use shared::money::Money;

use crate::gateway::{Answer, Outcome};
use crate::verdict::Verdict;

/// What `refunds.gateway_ref` and `last_error` hold.
const REF_MAX: usize = 128;
const CODE_MAX: usize = 64;

/// The verdict of a looked-up answer. One that does not fit will fit no better next time.
pub(super) fn found(answer: Answer, amount: &Money) -> Verdict {
    verdict(answer, amount).unwrap_or_else(|reason| Verdict::Park { reason })
}

/// # Errors
/// The answer speaks of another amount, or names nothing that could be looked up later.
pub(super) fn verdict(answer: Answer, amount: &Money) -> Result<Verdict, &'static str> {
    let Answer {
        outcome,
        gateway_ref,
        amount: answered,
    } = answer;
    if answered != *amount {
        return Err("mismatched_amount");
    }
    if gateway_ref.is_empty() || gateway_ref.len() > REF_MAX || !gateway_ref.is_ascii() {
        return Err("bad_reference");
    }
    Ok(match outcome {
        Outcome::Succeeded => Verdict::Succeeded { gateway_ref },
        Outcome::Declined { code } => Verdict::Declined {
            gateway_ref,
            code: plain(&code),
        },
        Outcome::Pending => Verdict::Pending { gateway_ref },
    })
}

/// A provider's code as we store it: what is not plain ASCII could be anything, also personal data.
fn plain(code: &str) -> String {
    let keep = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    code.chars().filter(keep).take(CODE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_keeps_only_plain_characters() {
        assert_eq!(plain("card_expired"), "card_expired");
        assert_eq!(plain("Müller, Anna <a@b>"), "MllerAnnaab");
        assert_eq!(plain(&"x".repeat(100)).len(), CODE_MAX);
    }
}
