//! Rows on their way back from `outbox_parked` to `outbox`. The one place beside `shared::domain::outbox` that inserts there:
//! the rows are the writer's own, with their ids, and nothing about a return changes.

use shared::domain::ids::Shard;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, FromRow};

use super::operate::Parked;

/// An order with parked rows.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct ParkedKey {
    pub(crate) shard: Shard,
    pub(crate) msg_key: String,
    pub(crate) parked_rows: i64,
}

/// Whose parked rows are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    Order(String),
    Shard(Shard),
    All,
}

/// The orders with parked rows, by shard; in each the one with the lowest id first.
pub(crate) async fn parked_keys(
    conn: &mut MySqlConnection,
    scope: &Scope,
) -> sqlx::Result<Vec<ParkedKey>> {
    let (key, shard) = match scope {
        Scope::Order(key) => (Some(key), None),
        Scope::Shard(shard) => (None, Some(*shard)),
        Scope::All => (None, None),
    };
    sqlx::query_as(
        "/* parked_keys */ SELECT shard, msg_key, COUNT(*) AS parked_rows FROM outbox_parked \
         FORCE INDEX (msg_key) WHERE (? IS NULL OR msg_key = ?) AND (? IS NULL OR shard = ?) \
         GROUP BY shard, msg_key ORDER BY shard, MIN(id)",
    )
    .bind(key)
    .bind(key)
    .bind(shard)
    .bind(shard)
    .fetch_all(conn)
    .await
}

/// Puts rows back into the outbox under their own `(shard, id)`: their order is their ids.
pub(crate) async fn copy_back(conn: &mut MySqlConnection, rows: Parked<'_>) -> sqlx::Result<u64> {
    let sql = format!(
        "/* copy_back */ INSERT INTO outbox (shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, \
         payload, traceparent, tracestate, created_at) \
         SELECT shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, traceparent, tracestate, \
         created_at FROM outbox_parked FORCE INDEX ({}) WHERE {} ORDER BY id",
        rows.index(),
        rows.condition()
    );
    let query = sqlx::query(AssertSqlSafe(sql));
    Ok(rows.bind(query).execute(conn).await?.rows_affected())
}
