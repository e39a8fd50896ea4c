//! A request to the policy, and why it may be denied.

use strum::{EnumIter, IntoStaticStr};

use crate::domain::ids::{CustomerId, ReturnId};

/// What a caller wants to do. Each endpoint and each command names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
pub enum Operation {
    /// File a return of one's own order.
    #[strum(serialize = "returns.create")]
    ReturnsCreate,
    /// File a return for a customer: the request's owner.
    #[strum(serialize = "returns.create_for")]
    ReturnsCreateFor,
    #[strum(serialize = "returns.read")]
    ReturnsRead,
    /// All returns.
    #[strum(serialize = "returns.list")]
    ReturnsList,
    /// The caller's own returns.
    #[strum(serialize = "returns.list_own")]
    ReturnsListOwn,
    #[strum(serialize = "returns.cancel")]
    ReturnsCancel,
    /// Approve or reject.
    #[strum(serialize = "returns.decide")]
    ReturnsDecide,
    /// Decide about a refund that waits for a person.
    #[strum(serialize = "refunds.decide")]
    RefundsDecide,
    #[strum(serialize = "orders.list")]
    OrdersList,
    /// Read the audit trail of one return.
    #[strum(serialize = "events.read")]
    EventsRead,
    /// Read the audit trail of all returns.
    #[strum(serialize = "events.list")]
    EventsList,
    /// Read what operators did, and why.
    #[strum(serialize = "operator_actions.list")]
    OperatorActionsList,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub(super) operation: Operation,
    pub(super) resource: Option<Resource>,
}

/// The return that a request is about, and its owner. A return that does not exist has no owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) id: ReturnId,
    pub(super) owner: Option<CustomerId>,
    /// The admin who filed it for the owner.
    pub(super) filed_by: Option<i64>,
}

/// Why a request is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is expired or not valid yet, it is for another audience, or its key may not sign for the role.
    #[error("the token is not accepted: {0}")]
    Token(String),
    #[error("the role, or a restriction in the token, does not allow this")]
    Forbidden,
    /// Another customer owns the resource, or it does not exist. The caller must not see the difference.
    #[error("the resource does not belong to the caller")]
    NotYours,
    #[error("the policy took too long to decide")]
    Undecided,
}

impl Operation {
    /// The name, as in the policy.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether it changes anything, as in the policy. A holder restricts a Biscuit to reading by this name.
    pub(super) fn access(self) -> &'static str {
        match self {
            Self::ReturnsRead
            | Self::ReturnsList
            | Self::ReturnsListOwn
            | Self::OrdersList
            | Self::EventsRead
            | Self::EventsList
            | Self::OperatorActionsList => "read",
            Self::ReturnsCreate
            | Self::ReturnsCreateFor
            | Self::ReturnsCancel
            | Self::ReturnsDecide
            | Self::RefundsDecide => "write",
        }
    }
}

impl Denied {
    /// A label for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Token(_) => "not_honored",
            Self::Forbidden => "forbidden",
            Self::NotYours => "not_yours",
            Self::Undecided => "undecided",
        }
    }
}

impl Request {
    /// A request that is about no single return.
    pub fn of(operation: Operation) -> Self {
        Self {
            operation,
            resource: None,
        }
    }

    /// A request about this return, which belongs to `owner` or does not exist.
    pub fn about(operation: Operation, id: ReturnId, owner: Option<CustomerId>) -> Self {
        Self {
            operation,
            resource: Some(Resource {
                id,
                owner,
                filed_by: None,
            }),
        }
    }

    /// The same, about a return that an admin filed for its owner.
    pub fn filed_by(mut self, admin: Option<i64>) -> Self {
        if let Some(resource) = &mut self.resource {
            resource.filed_by = admin;
        }
        self
    }
}
