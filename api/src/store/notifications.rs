//! What a provider's notification writes.

use shared::domain::refund::notification::Notification;
use sqlx::MySqlConnection;

/// Makes a refund due for a look-up; `false` if this provider account has no such refund that a look-up could change.
///
/// A paid refund during its look-up is made due too: that look-up may have been too early. An open one is due by itself
/// when its call ends. Its planned look-up is kept: the one that a notification brings forward does not replace it.
pub(crate) async fn make_refund_due(
    conn: &mut MySqlConnection,
    notification: &Notification,
) -> sqlx::Result<bool> {
    let due = sqlx::query(
        "/* make_refund_due */ UPDATE refunds SET \
         recheck_at = IF(state = 'succeeded', UTC_TIMESTAMP(6), recheck_at), \
         planned_check_at = IF(state = 'succeeded' OR next_check_at <= UTC_TIMESTAMP(6) \
         OR planned_check_at > UTC_TIMESTAMP(6), planned_check_at, next_check_at), \
         next_check_at = IF(state = 'succeeded', next_check_at, UTC_TIMESTAMP(6)) \
         WHERE idempotency_key = ? AND gateway = ? AND ((state = 'succeeded' AND gateway_ref IS NOT NULL) \
         OR (state IN ('pending', 'unknown') AND owner IS NULL))",
    )
    .bind(&notification.reference)
    .bind(&notification.gateway)
    .execute(conn)
    .await?;
    Ok(due.rows_affected() > 0)
}
