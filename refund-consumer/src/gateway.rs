//! The seam to the payment provider.
//!
//! A call has three ends: an answer, "certainly not sent", and "we do not know". The third is never taken for
//! either of the others; an answer to something else is the third.

pub mod http;
pub mod simulated;

use std::future::Future;

use shared::domain::money::Money;

use crate::attempt::IdempotencyKey;

/// What a provider can do; the consumer's care depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// It honors an idempotency key for the configured window: the same key twice has one effect.
    pub native_idempotency: bool,
    /// It may accept a refund and settle it later; another one's "pending" is no answer.
    pub asynchronous: bool,
}

/// A refund to be paid.
#[derive(Debug, Clone)]
pub struct RefundRequest {
    pub key: IdempotencyKey,
    pub amount: Money,
}

/// What the provider says about a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub outcome: Outcome,
    /// The provider's own id of the refund.
    pub gateway_ref: String,
    /// The amount the provider speaks of; one that is not ours makes the answer unusable.
    pub amount: Money,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    /// Refused for good, with the provider's code.
    Declined {
        code: String,
    },
    /// Accepted, not settled yet.
    Pending,
}

/// A call without a usable answer. The codes are short and stable: they are stored and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallFailed {
    /// The request cannot have reached the provider.
    #[error("not sent: {0}")]
    NotSent(&'static str),
    /// It may have.
    #[error("outcome unknown: {0}")]
    Unknown(&'static str),
    /// An answer came that is not about what was asked; asking again will tell the same.
    #[error("unusable answer: {0}")]
    Unusable(&'static str),
    /// The provider knows the key from another request, and did nothing.
    #[error("the key was used for another request")]
    KeyReused,
}

impl CallFailed {
    pub fn code(self) -> &'static str {
        match self {
            Self::NotSent(code) | Self::Unknown(code) | Self::Unusable(code) => code,
            Self::KeyReused => "key_reused",
        }
    }
}

/// A payment provider. Dropping a call's future leaves its outcome unknown, which the consumer expects.
pub trait RefundGateway: Send + Sync + 'static {
    /// As stored in `refunds.gateway`: at most 32 ASCII characters.
    fn name(&self) -> &'static str;

    fn capabilities(&self) -> Capabilities;

    /// Waits until a call may be made: for the provider's rate limit, or until it answers again. Cancel-safe.
    fn ready(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Whether a call would have to wait now, for longer than a rate limit makes it.
    fn lets_nobody_in(&self) -> bool {
        false
    }

    /// Asks for a refund. Must not retry by itself.
    fn submit(
        &self,
        request: &RefundRequest,
    ) -> impl Future<Output = Result<Answer, CallFailed>> + Send;

    /// Looks a refund up by its key; `None` if the provider knows none.
    fn find(
        &self,
        key: &IdempotencyKey,
    ) -> impl Future<Output = Result<Option<Answer>, CallFailed>> + Send;

    /// Asks for the state of a refund the provider has accepted under `key`.
    fn status(
        &self,
        gateway_ref: &str,
        key: &IdempotencyKey,
    ) -> impl Future<Output = Result<Option<Answer>, CallFailed>> + Send;
}
