//! Payments that nobody looks up again: no consumer with the name of their account is at work, or payments need every call.

use sqlx::FromRow;
use sqlx::mysql::MySqlConnection;

/// A look-up is made within seconds of its date, unless payments need every call for a while.
const RECHECK_OVERDUE: time::Duration = time::Duration::hours(1);

/// The overdue look-ups of one account.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct OverdueRechecks {
    /// The account: `GATEWAY_NAME`.
    pub gateway: String,
    pub attempts: i64,
    /// For how long the oldest of them has been due.
    pub oldest_secs: i64,
}

/// The accounts with look-ups that are more than an hour overdue, by name.
///
/// # Errors
/// A database error.
pub async fn overdue_rechecks(conn: &mut MySqlConnection) -> sqlx::Result<Vec<OverdueRechecks>> {
    // One range of the index for each account, and no row is read: only paid attempts have a date. The limit keeps the
    // grouping outside of that scan, which would read the whole index with it; beyond it the count is too low.
    let overdue = sqlx::query_as(
        "/* overdue_rechecks */ SELECT /*+ MAX_EXECUTION_TIME(30000) */ gateway, COUNT(*) AS attempts, \
         TIMESTAMPDIFF(SECOND, MIN(recheck_at), UTC_TIMESTAMP(6)) AS oldest_secs \
         FROM (SELECT /*+ SKIP_SCAN(f recheck) */ f.gateway, f.recheck_at FROM refunds AS f \
         WHERE f.recheck_at < UTC_TIMESTAMP(6) - INTERVAL ? SECOND \
         LIMIT 1000000) AS overdue GROUP BY gateway",
    )
    .bind(RECHECK_OVERDUE.whole_seconds())
    .fetch_all(conn);
    let mut overdue: Vec<OverdueRechecks> = overdue.await?;
    overdue.sort_unstable_by(|a, b| a.gateway.cmp(&b.gateway));
    Ok(overdue)
}
