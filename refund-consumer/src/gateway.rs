//! The seam to the payment provider.
//!
//! A call has three ends: a response, "certainly not sent", and "unknown". An unknown end never counts as one of the
//! others; a response about another refund is an unknown end.

pub mod http;
mod name;
pub mod simulated;

use std::future::Future;

use shared::domain::money::Money;
use shared::domain::refund::{ParkReason, ProviderKey};

pub use name::GatewayName;

/// What a provider can do; the consumer's care depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// It honors an idempotency key for the configured window: the same key twice has one effect.
    pub native_idempotency: bool,
    /// It may accept a refund and settle it later. From any other provider "pending" is unusable.
    pub asynchronous: bool,
}

/// A refund to be paid.
#[derive(Debug, Clone)]
pub struct RefundRequest {
    pub key: ProviderKey,
    pub amount: Money,
    /// How often the same was sent.
    pub sent_before: u32,
}

/// A refund as the provider reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderRefund {
    pub status: RefundStatus,
    /// The provider's own id of the refund.
    pub gateway_ref: String,
    /// If it is not the amount that we asked for, the response is unusable.
    pub amount: Money,
}

/// The provider's state of a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundStatus {
    Succeeded,
    /// Refused for good, with the provider's code.
    Declined {
        code: String,
    },
    /// Accepted, not settled yet.
    Pending,
}

/// The operations of a gateway, as counted.
pub const CALL_OPERATIONS: [&str; 3] = ["submit", "find", "status"];

/// The results of a call, as counted: a response, or one of the codes of [`CallFailed`].
pub const CALL_RESULTS: [&str; 20] = [
    "answered",
    "connect_failed",
    "request_not_built",
    "bad_request",
    "not_there",
    "rate_limited",
    "not_authorized",
    "deadline_passed",
    "timeout",
    "connection_lost",
    "answer_too_large",
    "in_progress",
    "server_error",
    "redirected",
    "unexpected_status",
    "bad_answer",
    "ledger_write_failed",
    "mismatched_reference",
    "several_found",
    "key_reused",
];

/// Calls that the provider may refuse one kind of and not the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    Submit,
    LookUp,
}

impl CallKind {
    pub const ALL: [Self; 2] = [Self::Submit, Self::LookUp];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::LookUp => "look_up",
        }
    }
}

/// A response that is not a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Ours: short and stable.
    pub code: &'static str,
    /// The status and the provider's codes, in at most 255 ASCII characters, without free text.
    pub words: String,
}

/// A call without a usable response. The codes are short and stable: they are stored and counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFailed {
    /// The request cannot have reached the provider, or the provider takes none now.
    #[error("not sent: {0}")]
    NotSent(&'static str),
    /// The provider will not make this refund, and has paid nothing; `reason` is what it is parked for in the end.
    #[error("refused: {}", .answer.words)]
    Refused { reason: ParkReason, answer: Answer },
    /// The response is not in the contract, so the outcome is unknown.
    #[error("not understood: {}", .0.words)]
    NotUnderstood(Answer),
    /// It may have.
    #[error("outcome unknown: {0}")]
    Unknown(&'static str),
    /// The response is not about the refund that was asked for; a repeat would bring the same.
    #[error("unusable response: {}", .0.as_str())]
    Unusable(ParkReason),
}

impl CallFailed {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotSent(code) | Self::Unknown(code) => code,
            Self::Refused { answer, .. } | Self::NotUnderstood(answer) => answer.code,
            Self::Unusable(reason) => reason.as_str(),
        }
    }
}

/// A payment provider. Dropping a call's future leaves its outcome unknown, which the consumer expects.
pub trait RefundGateway: Send + Sync + 'static {
    /// The account that is called. An attempt belongs to the account that it may have been sent to.
    fn name(&self) -> &GatewayName;

    fn capabilities(&self) -> Capabilities;

    /// Waits until a call may be made: for the rate limit, or until the provider is back. Cancel-safe.
    fn ready(&self, _: CallKind) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Whether the provider has lately answered every such call as none of its contract: several refunds one after the
    /// other. Then a single refund cannot be blamed.
    fn refuses_all(&self, _: CallKind) -> bool {
        false
    }

    /// Whether new refunds wait now for longer than a rate limit makes them.
    fn is_closed(&self) -> bool {
        false
    }

    /// Asks for a refund. Must not retry by itself.
    fn submit(
        &self,
        request: &RefundRequest,
    ) -> impl Future<Output = Result<ProviderRefund, CallFailed>> + Send;

    /// Looks a refund up by its key; `None` if the provider knows none.
    fn find(
        &self,
        key: &ProviderKey,
    ) -> impl Future<Output = Result<Option<ProviderRefund>, CallFailed>> + Send;

    /// Asks for the state of a refund that the provider has accepted under `key`.
    fn status(
        &self,
        gateway_ref: &str,
        key: &ProviderKey,
    ) -> impl Future<Output = Result<Option<ProviderRefund>, CallFailed>> + Send;
}
