//! Why an attempt waits for a person.

use strum::{EnumString, IntoStaticStr, VariantNames};

/// As stored in `refunds.last_error` of a parked attempt, and in its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum ParkReason {
    /// It may have been sent, and the provider still does not know its key after several look-ups.
    NotFound,
    /// The provider knows the key from another request.
    KeyReused,
    /// The provider refuses this refund each time, and accepts others.
    Refused,
    /// The provider answers about this refund in a way that is not in its contract, and understandably about others.
    NotUnderstood,
    /// The provider's response is about another refund.
    MismatchedReference,
    /// The provider's response is about another amount.
    MismatchedAmount,
    /// The provider's reference cannot be stored or looked up.
    BadReference,
    /// A provider that settles at once reports a refund as pending.
    UnexpectedPending,
    /// Several refunds of one key may have moved money.
    SeveralFound,
    /// The provider has paid this attempt and another one.
    PaidTwice,
    /// With this payment, this system has refunded more than the order's total.
    PaidMoreThanOrderTotal,
    /// No consumer of its account is at work, and a person has taken it on.
    GivenUp,
    /// An earlier attempt has paid, and this one may have been sent too.
    EarlierAttemptSucceeded,
    /// An earlier attempt went to another provider, which is not asked now.
    EarlierAttemptElsewhere,
    /// The provider's response about an earlier attempt cannot be used.
    EarlierAttemptMismatched,
    /// The provider took an earlier attempt back, and says now that it is paid.
    ReversalWithdrawn,
    /// The order no longer covers it, so it was not sent.
    NotCovered,
    /// Its currency cannot express its amount, so no provider can be asked for it.
    AmountNotPayable,
}

impl ParkReason {
    /// The name, as in the column.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the provider has reported that the attempt paid.
    pub fn says_paid(self) -> bool {
        match self {
            Self::PaidMoreThanOrderTotal | Self::PaidTwice | Self::SeveralFound => true,
            Self::NotFound
            | Self::KeyReused
            | Self::Refused
            | Self::NotUnderstood
            | Self::GivenUp
            | Self::MismatchedReference
            | Self::MismatchedAmount
            | Self::BadReference
            | Self::UnexpectedPending
            | Self::EarlierAttemptSucceeded
            | Self::EarlierAttemptElsewhere
            | Self::EarlierAttemptMismatched
            | Self::ReversalWithdrawn
            | Self::NotCovered
            | Self::AmountNotPayable => false,
        }
    }
}

impl ParkReason {
    /// In a sentence, for the person who has to decide.
    pub fn explained(self) -> &'static str {
        match self {
            Self::NotFound => "it may have been sent, and the provider knows no payment",
            Self::KeyReused => "the provider says that the key belongs to another request",
            Self::Refused => {
                "the provider refuses this refund and accepts others; the calls that it refused paid nothing"
            }
            Self::NotUnderstood => {
                "the provider answers about this refund in a way that its contract does not have; it may have paid"
            }
            Self::MismatchedReference => "the response names another refund than was asked about",
            Self::MismatchedAmount => "the refund under the key has another amount or currency",
            Self::BadReference => "the provider's name of the refund cannot be stored",
            Self::UnexpectedPending => "a provider that settles at once says that it is pending",
            Self::SeveralFound => "the provider has more than one refund under the key",
            Self::PaidTwice => "this attempt has paid, and so has another",
            Self::PaidMoreThanOrderTotal => {
                "the provider paid, and with that more than the order's total was refunded"
            }
            Self::GivenUp => {
                "no consumer of its account was at work, and an admin took it on; it may have paid"
            }
            Self::NotCovered => "the shop has written the order down, so this attempt was not sent",
            Self::AmountNotPayable => {
                "its currency cannot express the amount, so it was not sent to the provider"
            }
            Self::EarlierAttemptSucceeded => {
                "an earlier attempt has paid, and this one may have been sent"
            }
            Self::EarlierAttemptElsewhere => {
                "an earlier attempt used another account at a provider; this one was not sent"
            }
            Self::EarlierAttemptMismatched => {
                "the answer about an earlier attempt cannot be used; this one was not sent"
            }
            Self::ReversalWithdrawn => {
                "the provider took an earlier attempt back and calls it paid again; this one was not sent"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They are stored, so they must neither change nor outgrow their column.
    #[test]
    fn p5_stored_reasons_do_not_change() {
        assert_eq!(
            ParkReason::VARIANTS,
            [
                "not_found",
                "key_reused",
                "refused",
                "not_understood",
                "mismatched_reference",
                "mismatched_amount",
                "bad_reference",
                "unexpected_pending",
                "several_found",
                "paid_twice",
                "paid_more_than_order_total",
                "given_up",
                "earlier_attempt_succeeded",
                "earlier_attempt_elsewhere",
                "earlier_attempt_mismatched",
                "reversal_withdrawn",
                "not_covered",
                "amount_not_payable",
            ]
        );
        assert!(ParkReason::VARIANTS.iter().all(|reason| reason.len() <= 64));
    }
}
