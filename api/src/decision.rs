//! What people decide about a return that is there: cancel, approve, reject, retry its refund.
//!
//! Must stay true: `If-Match` and the state are judged on the locked row, in this order; the change, its event and its
//! outbox row are one transaction, in a task of its own, so a client that hangs up cancels nothing half way; a COMMIT
//! whose answer was lost is looked up, never repeated.

use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value, json};
use shared::auth::Operation;
use shared::domain::event::TopicArgs;
use shared::domain::ids::ReturnId;
use shared::domain::status::Action;
use shared::domain::transition::{
    self, Applied, Cause, Change, Locked, LockedReturn, NewAttempt, TransitionError,
};
use shared::runtime::db::DbFailure;
use shared::runtime::retry;
use sqlx::{Connection, MySqlConnection};

use crate::error::ApiError;
use crate::etag::Tags;
use crate::lane::{Failed, Lane};
use crate::store::{self, ReturnRow};

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Cancel,
    Approve,
    Reject,
    RetryRefund,
}

/// Who decides what about which return, as of which version.
#[derive(Debug, Clone)]
pub struct Decision {
    pub return_id: ReturnId,
    pub verb: Verb,
    /// Which versions of it the decision is about.
    pub if_match: Tags,
    /// A code of the shop's that explains it; kept in the event.
    pub reason_code: Option<String>,
    pub cause: Cause,
}

/// The last part of the path. What is no verb is no path.
impl FromStr for Verb {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "cancel" => Ok(Self::Cancel),
            "approve" => Ok(Self::Approve),
            "reject" => Ok(Self::Reject),
            "retry-refund" => Ok(Self::RetryRefund),
            _ => Err(()),
        }
    }
}

impl Verb {
    pub fn operation(self) -> Operation {
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
            Self::RetryRefund => "refunded once more",
        }
    }
}

/// A transaction that meets a deadlock or a lock wait runs again this often; each wait is up to 5 s.
const TRIES: u32 = 3;
const BACKOFF: Duration = Duration::from_millis(20);
const BACKOFF_CAP: Duration = Duration::from_millis(200);

/// Carries a decision out and answers the return as it is then. `lookups` is another lane, which no lock of a decision
/// holds up. Cancel-safe: a try that has begun is ended whether or not anybody waits for it.
///
/// # Errors
/// [`ApiError::PreconditionFailed`] for another version, [`ApiError::InvalidTransition`] where the state does not allow
/// it, [`ApiError::OutcomeUnknown`] if COMMIT was not answered and no trace of it is found, or MySQL fell silent.
pub(crate) async fn decide(
    lane: &Lane,
    lookups: &Lane,
    topics: &TopicArgs,
    decision: Decision,
) -> Result<ReturnRow, ApiError> {
    let mut tried = 1;
    loop {
        match try_once(lane, topics, &decision).await? {
            Ok(row) => return Ok(row),
            Err(Failure::LockConflict) if tried < TRIES => {
                tokio::time::sleep(retry::full_jitter(tried, BACKOFF, BACKOFF_CAP)).await;
                tried += 1;
            }
            Err(Failure::LockConflict) => return Err(ApiError::Unavailable),
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::LostCommit { applied, row }) => {
                return if is_there(lookups, applied).await {
                    Ok(*row)
                } else {
                    // The old COMMIT may still land.
                    Err(ApiError::OutcomeUnknown)
                };
            }
        }
    }
}

async fn try_once(
    lane: &Lane,
    topics: &TopicArgs,
    decision: &Decision,
) -> Result<Result<ReturnRow, Failure>, ApiError> {
    let (topics, decision) = (topics.clone(), decision.clone());
    let trying =
        lane.run(move |conn| Box::pin(async move { decide_once(conn, &topics, &decision).await }));
    trying.await.map_err(|failed| match failed {
        Failed::Silent(_) => {
            tracing::warn!(error = %failed, "whether a decision was written is not known");
            ApiError::OutcomeUnknown
        }
        Failed::NoTurn(_) | Failed::Database(_) | Failed::Panicked => failed.into(),
    })
}

/// Whether a COMMIT whose answer was lost took place, as far as anybody can tell.
async fn is_there(lane: &Lane, applied: Applied) -> bool {
    let looking =
        lane.query(move |conn| Box::pin(async move { store::has_event(conn, &applied).await }));
    looking.await.unwrap_or_else(|failed| {
        tracing::warn!(error = %failed, "whether a decision was written could not be looked up");
        false
    })
}

/// Why a decision was not carried out.
enum Failure {
    /// It is rolled back.
    LockConflict,
    /// It is rolled back.
    Refused(ApiError),
    /// It may or may not be there.
    LostCommit {
        applied: Applied,
        row: Box<ReturnRow>,
    },
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match DbFailure::of(&error) {
            DbFailure::LockConflict => Self::LockConflict,
            DbFailure::Duplicate { .. }
            | DbFailure::ConnectionLost
            | DbFailure::Unavailable
            | DbFailure::Other => Self::Refused(ApiError::from_database(&error)),
        }
    }
}

async fn decide_once(
    conn: &mut MySqlConnection,
    topics: &TopicArgs,
    decision: &Decision,
) -> Result<ReturnRow, Failure> {
    let mut tx = conn.begin().await?;
    let (applied, row) = match write(&mut tx, topics, decision).await {
        Ok(written) => written,
        Err(failure) => {
            if let Err(error) = tx.rollback().await {
                tracing::debug!(%error, "rollback failed");
            }
            return Err(failure);
        }
    };
    match tx.commit().await {
        Ok(()) => Ok(row),
        Err(error) => {
            tracing::warn!(%error, return.id = %row.id, "the answer to COMMIT was lost");
            let row = Box::new(row);
            Err(Failure::LostCommit { applied, row })
        }
    }
}

/// Everything between BEGIN and COMMIT.
async fn write(
    tx: &mut MySqlConnection,
    topics: &TopicArgs,
    decision: &Decision,
) -> Result<(Applied, ReturnRow), Failure> {
    let id = decision.return_id;
    let mut locked = transition::lock(tx, &[id]).await.map_err(unwritten)?;
    let row = locked.get(id).ok_or(Failure::Refused(ApiError::NotFound))?;
    judge(row, decision).map_err(Failure::Refused)?;
    let mut detail = Map::new();
    if let Some(code) = &decision.reason_code {
        detail.insert("reason_code".to_owned(), json!(code));
    }
    if decision.verb == Verb::RetryRefund {
        let attempt = add_attempt(tx, &locked, id).await?;
        detail.insert("attempt".to_owned(), json!(attempt.id.number));
    }
    let applied = apply(tx, &mut locked, topics, decision, detail).await?;
    let row = store::get_return(&mut *tx, id).await?;
    Ok((applied, row.ok_or(Failure::Refused(ApiError::NotFound))?))
}

fn judge(row: &LockedReturn, decision: &Decision) -> Result<(), ApiError> {
    if !decision.if_match.match_strongly(row.version) {
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

/// Locks return, then attempts; the order is read plainly: its one open return is locked, so nobody pays on it meanwhile.
async fn add_attempt(
    tx: &mut MySqlConnection,
    locked: &Locked,
    id: ReturnId,
) -> Result<NewAttempt, Failure> {
    let row = locked.get(id).ok_or(Failure::Refused(ApiError::NotFound))?;
    let not_now = |detail: String| {
        Failure::Refused(ApiError::InvalidTransition {
            status: row.status,
            detail,
        })
    };
    let order = store::get_order(tx, row.order_id).await?;
    if !order.is_some_and(|order| order.covers(&row.refund_amount)) {
        return Err(not_now(
            "what is left of the order does not suffice for the refund".to_owned(),
        ));
    }
    match transition::add_attempt(tx, row, locked.now).await {
        Ok(attempt) => Ok(attempt),
        Err(TransitionError::NoAttempt(why)) => Err(not_now(why.to_string())),
        Err(error) => Err(unwritten(error)),
    }
}

async fn apply(
    tx: &mut MySqlConnection,
    locked: &mut Locked,
    topics: &TopicArgs,
    decision: &Decision,
    detail: Map<String, Value>,
) -> Result<Applied, Failure> {
    let change = Change {
        return_id: decision.return_id,
        action: decision.verb.action(),
        cause: decision.cause.clone(),
        detail,
    };
    let applied = transition::apply(tx, locked, topics, &[change]).await;
    applied.map(|applied| applied[0]).map_err(unwritten)
}

fn unwritten(error: TransitionError) -> Failure {
    match error {
        TransitionError::Database(error) => error.into(),
        other => {
            tracing::error!(error = %other, "a decision could not be written");
            Failure::Refused(ApiError::Internal)
        }
    }
}
