//! One transaction for a slice of filings: read the orders, decide each in memory, write the accepted ones together.

use std::collections::HashMap;
use std::sync::Arc;

use shared::domain::eligibility::{self, OrderFacts, PolicyArgs};
use shared::domain::event::TopicArgs;
use shared::domain::ids::OrderId;
use shared::domain::transition::{self, Filed, NewReturn, TransitionError};
use shared::runtime::db::DbFailure;
use shared::runtime::killpoint::kill_point;
use sqlx::{Connection, MySqlConnection};
use time::OffsetDateTime;

use super::{FilingRequest, Receipt};
use crate::error::ApiError;
use crate::store::{self, OrderLock, OrderRow};

/// What the group's transaction decided for one request.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    Answer(Result<Receipt, ApiError>),
    /// Locked by another session, or unknown: only a read that waits for the lock can tell.
    OrderNotSeen,
}

/// Why a group's transaction did not end with an answer for everybody. Nothing of it was committed, but for
/// [`GroupFailure::CommitLost`].
#[derive(Debug)]
pub(super) enum GroupFailure {
    /// One row of the group was there already; the transaction was rolled back.
    Duplicate { key: String, value: String },
    /// Deadlock or lock wait timeout: run it again.
    LockConflict,
    /// The connection broke before COMMIT was sent: run it again on a new one.
    ConnectionLost,
    /// The answer to COMMIT was lost: these rows may or may not be there.
    CommitLost(Vec<Filed>, Vec<Verdict>),
    /// It did not end in time, or broke off: whether it was committed is unknown, and so is what it wrote.
    TimedOut,
    /// No use in trying again now.
    Failed(ApiError),
}

impl From<sqlx::Error> for GroupFailure {
    fn from(error: sqlx::Error) -> Self {
        match DbFailure::of(&error) {
            DbFailure::Duplicate { key, value } => Self::Duplicate { key, value },
            DbFailure::LockConflict => Self::LockConflict,
            DbFailure::ConnectionLost => Self::ConnectionLost,
            DbFailure::Unavailable | DbFailure::Other => {
                Self::Failed(ApiError::from_database(&error))
            }
        }
    }
}

impl From<TransitionError> for GroupFailure {
    fn from(error: TransitionError) -> Self {
        match error {
            TransitionError::Database(error) => error.into(),
            other => {
                tracing::error!(error = %other, "a filing could not be written");
                Self::Failed(ApiError::Internal)
            }
        }
    }
}

/// Files a group in one transaction. `requests` hold an order and an idempotency key at most once each; the answer
/// has one verdict per request, in the same order. If new filings are not `admitted`, stored answers are still replayed.
///
/// # Errors
/// See [`GroupFailure`]: the caller runs the rest again, one by one, or looks the outcome up.
pub(super) async fn file_group(
    conn: &mut MySqlConnection,
    topics: &TopicArgs,
    policy: &PolicyArgs,
    requests: &[Arc<FilingRequest>],
    lock: OrderLock,
    admitted: Result<(), ApiError>,
) -> Result<Vec<Verdict>, GroupFailure> {
    let mut tx = conn.begin().await?;
    match write_group(&mut tx, topics, policy, requests, lock, admitted).await {
        Ok((filed, verdicts)) => {
            kill_point("api.before_commit");
            match tx.commit().await {
                Ok(()) => {
                    kill_point("api.after_commit");
                    Ok(verdicts)
                }
                Err(_) if filed.is_empty() => Ok(verdicts),
                Err(error) => {
                    tracing::warn!(%error, "the answer to COMMIT was lost");
                    Err(GroupFailure::CommitLost(filed, verdicts))
                }
            }
        }
        Err(failure) => {
            // At once: after a 1062 a next-key lock stays and would stall others (MySQL manual, "Locks Set by
            // Different SQL Statements in InnoDB").
            if let Err(error) = tx.rollback().await {
                tracing::debug!(%error, "rollback failed");
            }
            Err(failure)
        }
    }
}

/// Everything between BEGIN and COMMIT.
async fn write_group(
    conn: &mut MySqlConnection,
    topics: &TopicArgs,
    policy: &PolicyArgs,
    requests: &[Arc<FilingRequest>],
    lock: OrderLock,
    admitted: Result<(), ApiError>,
) -> Result<(Vec<Filed>, Vec<Verdict>), GroupFailure> {
    let mut verdicts: Vec<Option<Verdict>> = vec![None; requests.len()];
    replay_stored(conn, requests, &mut verdicts).await?;
    if let Err(error) = admitted {
        refuse_pending(&mut verdicts, &error);
    }
    let ids: Vec<OrderId> = pending(requests, &verdicts)
        .map(|(_, request)| request.order)
        .collect();
    if !ids.is_empty() {
        let orders: HashMap<OrderId, OrderRow> = store::read_orders(conn, &ids, lock)
            .await?
            .into_iter()
            .map(|row| (row.id, row))
            .collect();
        for (at, request) in enumerate(requests) {
            if verdicts[at].is_none() {
                verdicts[at] = refusal(orders.get(&request.order), request, policy, lock);
            }
        }
        // A concurrent repeat may have committed between the first look at the keys and the read of the orders:
        // its stored answer wins over a 409 or 422.
        replay_refused(conn, requests, &mut verdicts).await?;
        let filed = write_accepted(conn, topics, policy, requests, &verdicts, &orders).await?;
        for (row, at) in &filed {
            verdicts[*at] = Some(Verdict::Answer(Ok(Receipt::new(row.return_id))));
        }
        return Ok((
            filed.into_iter().map(|(row, _)| row).collect(),
            complete(verdicts),
        ));
    }
    Ok((Vec::new(), complete(verdicts)))
}

fn refuse_pending(verdicts: &mut [Option<Verdict>], error: &ApiError) {
    for verdict in verdicts {
        verdict.get_or_insert_with(|| Verdict::Answer(Err(error.clone())));
    }
}

fn complete(verdicts: Vec<Option<Verdict>>) -> Vec<Verdict> {
    verdicts
        .into_iter()
        .map(|verdict| verdict.expect("every request was refused, replayed or written"))
        .collect()
}

fn enumerate(requests: &[Arc<FilingRequest>]) -> impl Iterator<Item = (usize, &FilingRequest)> {
    requests.iter().map(Arc::as_ref).enumerate()
}

/// The requests that have no verdict yet.
fn pending<'a>(
    requests: &'a [Arc<FilingRequest>],
    verdicts: &'a [Option<Verdict>],
) -> impl Iterator<Item = (usize, &'a FilingRequest)> {
    enumerate(requests).filter(|(at, _)| verdicts[*at].is_none())
}

/// Answers requests whose key has a stored answer.
async fn replay_stored(
    conn: &mut MySqlConnection,
    requests: &[Arc<FilingRequest>],
    verdicts: &mut [Option<Verdict>],
) -> Result<(), GroupFailure> {
    let keyed: Vec<usize> = pending(requests, verdicts)
        .filter(|(_, request)| request.key.is_some())
        .map(|(at, _)| at)
        .collect();
    replay(conn, requests, verdicts, &keyed).await
}

/// Looks again at the keys of refused requests.
async fn replay_refused(
    conn: &mut MySqlConnection,
    requests: &[Arc<FilingRequest>],
    verdicts: &mut [Option<Verdict>],
) -> Result<(), GroupFailure> {
    let refused: Vec<usize> = enumerate(requests)
        .filter(|(at, request)| {
            request.key.is_some() && matches!(verdicts[*at], Some(Verdict::Answer(Err(_))))
        })
        .map(|(at, _)| at)
        .collect();
    replay(conn, requests, verdicts, &refused).await
}

async fn replay(
    conn: &mut MySqlConnection,
    requests: &[Arc<FilingRequest>],
    verdicts: &mut [Option<Verdict>],
    positions: &[usize],
) -> Result<(), GroupFailure> {
    let keys: Vec<_> = positions
        .iter()
        .filter_map(|at| requests[*at].key.as_ref())
        .collect();
    if keys.is_empty() {
        return Ok(());
    }
    let stored = store::read_answers(conn, &keys).await?;
    for (at, key) in positions.iter().zip(keys) {
        if let Some(answer) = stored.get(&(key.actor.as_str(), key.key.as_str())) {
            let receipt = key.accept(answer).and_then(Receipt::stored);
            verdicts[*at] = Some(Verdict::Answer(receipt));
        }
    }
    Ok(())
}

/// Why this request is not written, or `None` if it is.
fn refusal(
    order: Option<&OrderRow>,
    request: &FilingRequest,
    policy: &PolicyArgs,
    lock: OrderLock,
) -> Option<Verdict> {
    let Some(order) = order else {
        return Some(match lock {
            OrderLock::SkipLocked => Verdict::OrderNotSeen,
            OrderLock::Wait => Verdict::Answer(Err(ApiError::UnknownOrder)),
        });
    };
    let Some(facts) = &order.facts else {
        return Some(Verdict::Answer(Err(ApiError::Internal)));
    };
    // One answer for "unknown" and "not yours": who asks must not learn which orders exist.
    if facts.customer_id != request.customer {
        return Some(Verdict::Answer(Err(ApiError::UnknownOrder)));
    }
    if let Some(return_id) = order.open_return {
        return Some(Verdict::Answer(Err(ApiError::AlreadyOpen { return_id })));
    }
    let violations = eligibility::violations(facts, false, order.now, policy);
    (!violations.is_empty()).then(|| Verdict::Answer(Err(ApiError::NotEligible(violations))))
}

/// Writes the requests without a verdict; answers each with its position in `requests`.
async fn write_accepted(
    conn: &mut MySqlConnection,
    topics: &TopicArgs,
    policy: &PolicyArgs,
    requests: &[Arc<FilingRequest>],
    verdicts: &[Option<Verdict>],
    orders: &HashMap<OrderId, OrderRow>,
) -> Result<Vec<(Filed, usize)>, GroupFailure> {
    let mut accepted: Vec<(usize, &FilingRequest)> = pending(requests, verdicts).collect();
    let Some(now) = accepted
        .iter()
        .filter_map(|(_, request)| orders.get(&request.order))
        .map(|order| order.now)
        .max()
    else {
        return Ok(Vec::new());
    };
    // Every multi-row insert is sorted by its table's unique key, so that two groups never deadlock on it.
    accepted.sort_unstable_by_key(|(_, request)| request.order);
    let rows = accepted
        .iter()
        .map(|(_, request)| {
            let facts = orders.get(&request.order)?.facts.as_ref()?;
            new_return(request, facts, policy)
        })
        .collect::<Option<Vec<NewReturn>>>()
        .ok_or(GroupFailure::Failed(ApiError::Internal))?;
    let opened = transition::open(conn, now, &rows).await?;
    kill_point("api.after_insert");
    store_receipts(conn, now, &accepted, opened.filed()).await?;
    let filed = opened.announce(conn, topics).await?;
    Ok(filed
        .into_iter()
        .zip(accepted)
        .map(|(row, (at, _))| (row, at))
        .collect())
}

/// Stores the answers of the keyed requests.
async fn store_receipts(
    conn: &mut MySqlConnection,
    now: OffsetDateTime,
    accepted: &[(usize, &FilingRequest)],
    filed: &[Filed],
) -> Result<(), GroupFailure> {
    let mut answers: Vec<_> = accepted
        .iter()
        .zip(filed)
        .filter_map(|((_, request), row)| {
            Some((request.key.as_ref()?, Receipt::new(row.return_id).body))
        })
        .collect();
    answers.sort_unstable_by_key(|(key, _)| (&key.actor, &key.key));
    store::insert_answers(conn, now, &answers).await?;
    Ok(())
}

fn new_return(
    request: &FilingRequest,
    order: &OrderFacts,
    policy: &PolicyArgs,
) -> Option<NewReturn> {
    let refund_amount = eligibility::refundable(order)?;
    Some(NewReturn {
        order_id: request.order,
        customer_id: request.customer,
        reason: request.reason.clone(),
        reason_code: request.reason_code.clone(),
        review_required: policy.needs_review(&refund_amount),
        refund_amount,
        cause: request.cause.clone(),
    })
}
