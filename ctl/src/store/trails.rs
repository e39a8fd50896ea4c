//! Returns whose audit trail lacks events, for `doctor`.

use shared::domain::ids::ReturnId;
use sqlx::FromRow;
use sqlx::mysql::MySqlConnection;

/// A return, and how many of its events are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct Trail {
    #[sqlx(rename = "id")]
    pub(crate) return_id: ReturnId,
    /// How many there should be.
    pub(crate) version: i32,
    pub(crate) present: i64,
}

impl Trail {
    pub(crate) fn is_whole(&self) -> bool {
        self.present == i64::from(self.version)
    }
}

/// The highest id, 0 without returns.
pub(crate) async fn last_return(conn: &mut MySqlConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("/* last_return */ SELECT COALESCE(MAX(id), 0) FROM returns")
        .fetch_one(conn)
        .await
}

/// The trails of up to `limit` returns with an id of at most `up_to`, the highest first.
pub(crate) async fn trails(
    conn: &mut MySqlConnection,
    up_to: i64,
    limit: u32,
) -> sqlx::Result<Vec<Trail>> {
    sqlx::query_as(
        "/* trails */ SELECT r.id, r.version, (SELECT COUNT(*) FROM return_events AS e FORCE INDEX (return_seq) \
         WHERE e.return_id = r.id AND e.seq BETWEEN 1 AND r.version) AS present \
         FROM returns AS r FORCE INDEX (PRIMARY) WHERE r.id <= ? ORDER BY r.id DESC LIMIT ?",
    )
    .bind(up_to)
    .bind(limit)
    .fetch_all(conn)
    .await
}
