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
    /// The provider has paid more than what was left of the order.
    PaidMoreThanOrderTotal,
    /// An earlier attempt has paid, and this one may have been sent too.
    EarlierAttemptSucceeded,
    /// An earlier attempt went to another provider, which is not asked now.
    EarlierAttemptElsewhere,
    /// The provider's response about an earlier attempt cannot be used.
    EarlierAttemptMismatched,
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
            | Self::MismatchedReference
            | Self::MismatchedAmount
            | Self::BadReference
            | Self::UnexpectedPending
            | Self::EarlierAttemptSucceeded
            | Self::EarlierAttemptElsewhere
            | Self::EarlierAttemptMismatched => false,
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
                "mismatched_reference",
                "mismatched_amount",
                "bad_reference",
                "unexpected_pending",
                "several_found",
                "paid_twice",
                "paid_more_than_order_total",
                "earlier_attempt_succeeded",
                "earlier_attempt_elsewhere",
                "earlier_attempt_mismatched",
            ]
        );
        assert!(ParkReason::VARIANTS.iter().all(|reason| reason.len() <= 64));
    }
}
