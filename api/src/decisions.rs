//! Decisions of people about an existing return: cancel, approve, reject, retry its refund.
//!
//! Must stay true: `If-Match` and then the status are checked on the locked row; the change, its event and its outbox
//! row are one transaction, in a task of its own, so a client that disconnects cancels nothing half way; if the
//! response to COMMIT is lost, the change is looked up and never repeated.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use shared::auth::Operation;
use shared::domain::event::TopicArgs;
use shared::domain::ids::ReturnId;
use shared::domain::status::Action;
use shared::domain::transition::{
    self, Applied, Cause, Change, Locked, LockedReturn, NewAttempt, TransitionError,
};
use shared::runtime::db::{Database, DbError, Retry, TransactionError};
use shared::runtime::tasks::{Backoff, Rarely, chain};
use shared::runtime::trace;
use sqlx::MySqlConnection;

use crate::error::ApiError;
use crate::store::{self, ReturnRow};

/// What a person decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Cancel,
    Approve,
    Reject,
    RetryRefund,
}

/// A decision about one return, based on one of `versions`.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    pub(crate) return_id: ReturnId,
    pub(crate) verb: Verb,
    pub(crate) versions: Versions,
    /// A code of the shop's that explains it; kept in the event.
    pub(crate) reason_code: Option<String>,
    pub(crate) cause: Cause,
}

/// Which versions of a return a decision may be applied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Versions {
    Any,
    Listed(Vec<i32>),
}

impl Versions {
    pub(crate) fn contain(&self, version: i32) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(versions) => versions.contains(&version),
        }
    }
}

impl Verb {
    pub(crate) fn operation(self) -> Operation {
        match self {
            Self::Cancel => Operation::ReturnsCancel,
            Self::Approve | Self::Reject => Operation::ReturnsDecide,
            Self::RetryRefund => Operation::RefundsDecide,
        }
    }

    fn action(self) -> Action {
        match self {
            Self::Cancel => Action::Cancel,
            Self::Approve => Action::Approve,
            Self::Reject => Action::Reject,
            Self::RetryRefund => Action::Retry,
        }
    }

    fn participle(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Approve => "approved",
            Self::Reject => "rejected",
            Self::RetryRefund => "refunded again",
        }
    }
}

/// A transaction that meets a deadlock or a lock wait timeout runs again this often. Each wait is at most 5 s.
const RETRY: Retry = Retry {
    tries: 3,
    backoff: Backoff {
        base: Duration::from_millis(20),
        cap: Duration::from_millis(200),
    },
};

/// Applies decisions.
#[derive(Debug)]
pub(crate) struct Decisions {
    /// A share of its own: each decision may wait for a lock.
    pub(crate) db: Database,
    /// Another share, which no lock of a decision delays.
    pub(crate) lookups: Database,
    pub(crate) topics: TopicArgs,
    /// For each try.
    pub(crate) deadline: Duration,
}

/// Why a decision was not written. Its transaction is rolled back.
#[derive(Debug, thiserror::Error)]
enum DecisionError {
    #[error("refused")]
    Refused(ApiError),
    #[error("database")]
    Database(#[from] DbError),
    #[error("a decision could not be written")]
    Transition(#[from] TransitionError),
}

impl From<sqlx::Error> for DecisionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<DecisionError> for ApiError {
    fn from(error: DecisionError) -> Self {
        match error {
            DecisionError::Refused(error) => error,
            DecisionError::Database(error) => error.into(),
            DecisionError::Transition(TransitionError::Database(error)) => {
                DbError::from(error).into()
            }
            DecisionError::Transition(_) => {
                tracing::error!(error = chain(&error), "a decision could not be written");
                Self::Internal
            }
        }
    }
}

impl Decisions {
    /// Applies a decision and returns the return as it is then. Cancel-safe: a try that has begun is finished whether
    /// or not the client still waits.
    ///
    /// # Errors
    /// [`ApiError::PreconditionFailed`] for another version, [`ApiError::InvalidTransition`] where the status does not
    /// allow it, [`ApiError::OutcomeUnknown`] if the response to COMMIT was lost and the change is not found.
    pub(crate) async fn apply(&self, decision: Decision) -> Result<ReturnRow, ApiError> {
        let (topics, decision) = (self.topics.clone(), Arc::new(decision));
        let written = self
            .db
            .transaction("decide", self.deadline, RETRY, move |conn| {
                let (topics, decision) = (topics.clone(), Arc::clone(&decision));
                Box::pin(async move { write(conn, &topics, &decision).await })
            });
        match written.await {
            Ok((_, row)) => Ok(row),
            Err(TransactionError::Conflict(_)) => Err(ApiError::Unavailable),
            // One response for a MySQL that falls silent, also where COMMIT was certainly not sent.
            Err(
                TransactionError::Refused(DecisionError::Database(DbError::DeadlinePassed(_)))
                | TransactionError::CommitUnknown {
                    cause: DbError::DeadlinePassed(_),
                    ..
                },
            ) => Err(ApiError::OutcomeUnknown),
            Err(TransactionError::Refused(error)) => Err(error.into()),
            Err(TransactionError::CommitUnknown {
                value: (applied, row),
                ..
            }) => {
                if self.is_written(applied).await {
                    Ok(row)
                } else {
                    // The old COMMIT may still take effect.
                    Err(ApiError::OutcomeUnknown)
                }
            }
        }
    }

    /// Whether a change whose response to COMMIT was lost is found.
    async fn is_written(&self, applied: Applied) -> bool {
        let found = self
            .lookups
            .run("find_decision", self.deadline, move |conn| {
                Box::pin(async move {
                    let found = store::has_event(conn, &applied).await;
                    found.map_err(DbError::from)
                })
            });
        found.await.unwrap_or_else(|error| {
            static LOST: Rarely = Rarely::new();
            if let Some(left_out) = LOST.due() {
                let error = chain(&error);
                tracing::warn!(error, left_out, "a lost COMMIT could not be looked up");
            }
            false
        })
    }
}

/// Everything between BEGIN and COMMIT.
async fn write(
    conn: &mut MySqlConnection,
    topics: &TopicArgs,
    decision: &Decision,
) -> Result<(Applied, ReturnRow), DecisionError> {
    let id = decision.return_id;
    let mut locked = transition::lock(conn, &[id]).await?;
    let row = locked.get(id).ok_or(NOT_FOUND)?;
    check(row, decision).map_err(DecisionError::Refused)?;
    if let Some(before) = &row.trace {
        trace::link_current(before);
    }
    let mut detail = Map::new();
    if let Some(code) = &decision.reason_code {
        detail.insert("reason_code".to_owned(), json!(code));
    }
    if decision.verb == Verb::RetryRefund {
        let attempt = add_attempt(conn, &locked, row).await?;
        detail.insert("attempt".to_owned(), json!(attempt.id.number));
    }
    let applied = apply(conn, &mut locked, topics, decision, detail).await?;
    let row = store::get_return(&mut *conn, id).await?;
    Ok((applied, row.ok_or(NOT_FOUND)?))
}

const NOT_FOUND: DecisionError = DecisionError::Refused(ApiError::NotFound);

fn check(row: &LockedReturn, decision: &Decision) -> Result<(), ApiError> {
    if !decision.versions.contain(row.version) {
        return Err(ApiError::PreconditionFailed);
    }
    match row.status.after(decision.verb.action()) {
        Ok(_) => Ok(()),
        Err(_) => Err(ApiError::InvalidTransition {
            status: row.status,
            detail: format!(
                "a return that is {} cannot be {}",
                row.status,
                decision.verb.participle()
            ),
        }),
    }
}

/// Locks the return, then its attempts. The order is read without a lock: its only open return is locked, so no other
/// payment is made on it meanwhile.
async fn add_attempt(
    conn: &mut MySqlConnection,
    locked: &Locked,
    row: &LockedReturn,
) -> Result<NewAttempt, DecisionError> {
    let refused = |detail: String| {
        DecisionError::Refused(ApiError::InvalidTransition {
            status: row.status,
            detail,
        })
    };
    let order = store::get_order(conn, row.order_id).await?;
    if !order.is_some_and(|order| order.covers(&row.refund_amount)) {
        return Err(refused(
            "the order's remaining amount does not cover the refund".to_owned(),
        ));
    }
    if !row.refund_amount.is_payable() {
        return Err(refused(
            "the currency of the refund cannot express its amount".to_owned(),
        ));
    }
    match transition::add_attempt(conn, row, locked.now).await {
        Err(TransitionError::NoAttempt(why)) => Err(refused(why.to_string())),
        result => Ok(result?),
    }
}

async fn apply(
    conn: &mut MySqlConnection,
    locked: &mut Locked,
    topics: &TopicArgs,
    decision: &Decision,
    detail: Map<String, Value>,
) -> Result<Applied, TransitionError> {
    let change = Change {
        return_id: decision.return_id,
        action: decision.verb.action(),
        cause: decision.cause.clone(),
        detail,
    };
    let applied = transition::apply(conn, locked, topics, &[change]).await?;
    Ok(applied[0])
}
