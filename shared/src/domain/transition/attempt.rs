//! The attempt that a retry records beside its change of status.

use sqlx::{MySqlConnection, Row};
use time::OffsetDateTime;

use super::{LockedReturn, TransitionError};
use crate::domain::attempt::{AttemptId, AttemptState, IdempotencyKey, following};
use crate::domain::ids::EventId;

/// An attempt that was recorded: due at once and nobody's, so whichever consumer scans first takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttempt {
    pub id: AttemptId,
    pub key: IdempotencyKey,
}

/// Locks the attempts of a locked return and records the one that follows. `Action::Retry` is owed in the same
/// transaction; whether the order still has the money is the caller's to judge.
///
/// # Errors
/// [`TransitionError::NoAttempt`] before anything is written; any other error: roll back.
pub async fn add_attempt(
    conn: &mut MySqlConnection,
    row: &LockedReturn,
    now: OffsetDateTime,
) -> Result<NewAttempt, TransitionError> {
    let id = AttemptId {
        return_id: row.id,
        number: following(lock_attempts(conn, row).await?)?,
    };
    let key = IdempotencyKey::of(first_event(conn, row).await?, id.number);
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

/// Number and state of each attempt, ascending.
async fn lock_attempts(
    conn: &mut MySqlConnection,
    row: &LockedReturn,
) -> Result<Vec<(i32, AttemptState)>, TransitionError> {
    let rows = sqlx::query(
        "/* transition::lock_attempts */ SELECT attempt, state FROM refunds FORCE INDEX (PRIMARY) \
         WHERE return_id = ? ORDER BY attempt FOR UPDATE",
    )
    .bind(row.id)
    .fetch_all(conn)
    .await?;
    let read = |row: &sqlx::mysql::MySqlRow| {
        let state: String = row.try_get("state")?;
        let state = AttemptState::parse(&state);
        let state = state.ok_or(TransitionError::Unreadable("refunds.state"))?;
        Ok((row.try_get("attempt")?, state))
    };
    rows.iter().map(read).collect()
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
