//! The oldest new return that no consumer has claimed.

use std::time::Duration;

use shared::domain::refund::datetime;
use sqlx::{MySqlConnection, Row};
use time::OffsetDateTime;

/// A reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OldestUnclaimed {
    /// `None`: every new return was claimed.
    pub(crate) filed_at: Option<OffsetDateTime>,
    /// The database's clock.
    pub(crate) now: OffsetDateTime,
}

impl OldestUnclaimed {
    pub(crate) fn age(&self) -> Duration {
        let age = self.filed_at.map(|filed| self.now - filed);
        age.and_then(|age| age.try_into().ok()).unwrap_or_default()
    }
}

/// Reads the oldest return that was filed at `from` or later, is still `initiated`, and waits for no review: it has not
/// changed since it was filed.
pub(crate) async fn oldest_unclaimed(
    conn: &mut MySqlConnection,
    from: OffsetDateTime,
) -> sqlx::Result<OldestUnclaimed> {
    let row = sqlx::query(
        "/* oldest_unclaimed */ SELECT /*+ MAX_EXECUTION_TIME(4000) */ UTC_TIMESTAMP(6) AS now, \
         (SELECT updated_at FROM returns FORCE INDEX (status_updated) WHERE status = 'initiated' \
         AND review_required = 0 AND updated_at >= ? ORDER BY updated_at LIMIT 1) AS filed_at",
    )
    .bind(datetime(from))
    .fetch_one(conn)
    .await?;
    Ok(OldestUnclaimed {
        filed_at: row.try_get("filed_at")?,
        now: row.try_get("now")?,
    })
}
