//! Returns whose audit trail lacks events.

use shared::domain::ids::{OrderId, ReturnId};
use sqlx::{FromRow, MySqlConnection};

/// A return, and how many of its events are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct BrokenTrail {
    #[sqlx(rename = "id")]
    pub(crate) return_id: ReturnId,
    /// How many there should be.
    pub(crate) version: i32,
    pub(crate) present: i64,
}

const WITH_PRESENT: &str = "SELECT r.id, r.version, (SELECT COUNT(*) FROM return_events AS e FORCE INDEX (return_seq) \
                            WHERE e.return_id = r.id AND e.seq BETWEEN 1 AND r.version) AS present FROM returns AS r";

/// The return, if its trail is broken. One statement, so that a change meanwhile breaks nothing.
pub(crate) async fn broken_trail_of(
    conn: &mut MySqlConnection,
    id: ReturnId,
) -> sqlx::Result<Option<BrokenTrail>> {
    let sql = format!(
        "/* broken_trail_of */ {WITH_PRESENT} FORCE INDEX (PRIMARY) WHERE r.id = ? HAVING present < r.version"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(id)
        .fetch_optional(conn)
        .await
}

/// The first return of the order with a broken trail.
pub(crate) async fn broken_trail_of_order(
    conn: &mut MySqlConnection,
    order: OrderId,
) -> sqlx::Result<Option<BrokenTrail>> {
    let sql = format!(
        "/* broken_trail_of_order */ {WITH_PRESENT} FORCE INDEX (order_id) WHERE r.order_id = ? \
         HAVING present < r.version ORDER BY r.id LIMIT 1"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(order)
        .fetch_optional(conn)
        .await
}

/// The first return, if no event of any return is there.
pub(crate) async fn no_trail_at_all(
    conn: &mut MySqlConnection,
) -> sqlx::Result<Option<BrokenTrail>> {
    sqlx::query_as(
        "/* no_trail_at_all */ SELECT id, version, CAST(0 AS SIGNED) AS present FROM returns FORCE INDEX (PRIMARY) \
         WHERE NOT EXISTS (SELECT 1 FROM return_events) ORDER BY id LIMIT 1",
    )
    .fetch_optional(conn)
    .await
}
