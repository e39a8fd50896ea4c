//! The attempt that a retry records beside its change of status.

use sqlx::MySqlConnection;
use time::OffsetDateTime;

use super::{LockedReturn, TransitionError};
use crate::domain::ids::EventId;
use crate::domain::refund::{
    AttemptId, AttemptState, IfHeld, ProviderKey, following, lock_attempts,
};

/// An attempt that was recorded. It is due at once and has no owner, so the first consumer that scans takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttempt {
    pub id: AttemptId,
    pub key: ProviderKey,
}

/// Locks the attempts of a locked return and records the one that follows. The caller applies `Action::Retry` in the
/// same transaction, and checks whether the order still has the money.
///
/// # Errors
/// [`TransitionError::NoAttempt`] before anything is written; any other error: roll back.
pub async fn add_attempt(
    conn: &mut MySqlConnection,
    row: &LockedReturn,
    now: OffsetDateTime,
) -> Result<NewAttempt, TransitionError> {
    let attempts = lock_attempts(conn, &[row.id], IfHeld::Wait).await?;
    let id = AttemptId {
        return_id: row.id,
        number: following(attempts.get(&row.id).into_iter().flatten())?,
    };
    let key = ProviderKey::of(first_event(conn, row).await?, id.number);
    sqlx::query(
        "/* transition::add_attempt */ INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, \
         state, next_check_at, checks, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
    )
    .bind(id.return_id)
    .bind(id.number)
    .bind(&key)
    .bind(row.refund_amount.amount)
    .bind(row.refund_amount.currency.as_str())
    .bind(AttemptState::Claimed.as_str())
    .bind(now)
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(NewAttempt { id, key })
}

/// The event that opened the return's history: part of every attempt's key.
async fn first_event(conn: &mut MySqlConnection, row: &LockedReturn) -> sqlx::Result<EventId> {
    sqlx::query_scalar(
        "/* transition::first_event */ SELECT event_id FROM return_events FORCE INDEX (return_seq) \
         WHERE return_id = ? AND seq = 1",
    )
    .bind(row.id)
    .fetch_one(conn)
    .await
}
