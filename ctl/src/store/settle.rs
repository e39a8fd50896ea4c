//! What a person's decision about a refund writes. The lock order is the consumer's: the order, the return, its attempts,
//! then inserts. The caller opens and commits the transaction, and records the decision
//! (`actions`).

use shared::domain::ids::{OrderId, ReturnId};
use shared::domain::refund::{Attempt, AttemptState};
use sqlx::mysql::MySqlConnection;
use time::OffsetDateTime;

/// The order of a return: it never changes, so no lock is needed.
pub(crate) async fn order_of(
    conn: &mut MySqlConnection,
    id: ReturnId,
) -> sqlx::Result<Option<OrderId>> {
    sqlx::query_scalar("/* order_of */ SELECT order_id FROM returns WHERE id = ?")
        .bind(id)
        .fetch_optional(conn)
        .await
}

/// How an attempt ends by a person's decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closing<'a> {
    pub(crate) state: AttemptState,
    /// For a row that has none: the gateway's own reference stays.
    pub(crate) gateway_ref: Option<&'a str>,
    pub(crate) last_error: Option<&'a str>,
}

/// Closes an attempt by people's word, so it has no date of a payment that the provider reported. It must still be as it was
/// when it was locked; answers the number of rows, which must be 1.
pub(crate) async fn close_attempt(
    conn: &mut MySqlConnection,
    attempt: &Attempt,
    closing: Closing<'_>,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let closed = sqlx::query(
        "/* close_attempt */ UPDATE refunds SET gateway_ref = ?, last_error = ?, owner = NULL, call_deadline = NULL, \
         succeeded_at = NULL, recheck_at = NULL, updated_at = ?, state = ? \
         WHERE return_id = ? AND attempt = ? AND state = ? AND owner <=> ? \
         AND call_deadline <=> ? AND first_sent_at <=> ? AND next_check_at = ? AND checks = ? AND gateway <=> ? \
         AND gateway_ref <=> ? AND last_error <=> ? AND updated_at = ?",
    )
    .bind(attempt.gateway_ref.as_deref().or(closing.gateway_ref))
    .bind(closing.last_error)
    .bind(now)
    .bind(closing.state.as_str())
    .bind(attempt.id.return_id)
    .bind(attempt.id.number)
    .bind(attempt.state.as_str())
    .bind(attempt.owner)
    .bind(attempt.call_deadline)
    .bind(attempt.first_sent_at)
    .bind(attempt.next_check_at)
    .bind(attempt.checks)
    .bind(&attempt.gateway)
    .bind(&attempt.gateway_ref)
    .bind(&attempt.last_error)
    .bind(attempt.updated_at)
    .execute(conn)
    .await?;
    Ok(closed.rows_affected())
}
