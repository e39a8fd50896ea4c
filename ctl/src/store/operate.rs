//! What an operator changes about the outbox: parked rows and pauses. The caller opens and commits the transaction,
//! records the deed (`actions`), and locks the shard's lease row first, as the relay does before it parks: no relay then parks rows of that shard meanwhile, and none that decided to
//! before can afterwards, because `redrive_gen` is part of its right to.

use shared::domain::ids::{EventId, Shard};
use sqlx::mysql::{MySqlArguments, MySqlConnection};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, MySql};

/// Parked rows of one shard.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parked<'a> {
    /// Every row of these orders, at least one order.
    Orders(Shard, &'a [String]),
    Row(Shard, i64, EventId),
}

impl Parked<'_> {
    pub(super) fn condition(&self) -> String {
        match self {
            Self::Orders(_, keys) => {
                format!(
                    "shard = ? AND msg_key IN ({})",
                    vec!["?"; keys.len()].join(",")
                )
            }
            Self::Row(..) => "shard = ? AND id = ? AND event_id = ?".to_owned(),
        }
    }

    /// Forced, because with statistics from an empty table a list becomes a scan.
    pub(super) fn index(&self) -> &'static str {
        match self {
            Self::Orders(..) => "msg_key",
            Self::Row(..) => "PRIMARY",
        }
    }

    pub(super) fn bind<'q>(
        self,
        query: Query<'q, MySql, MySqlArguments>,
    ) -> Query<'q, MySql, MySqlArguments> {
        match self {
            Self::Orders(shard, keys) => keys
                .iter()
                .fold(query.bind(shard), |query, key| query.bind(key.clone())),
            Self::Row(shard, id, event) => query.bind(shard).bind(id).bind(event),
        }
    }
}

/// Where an event is parked, and its order.
pub(crate) async fn find_parked(
    conn: &mut MySqlConnection,
    event: EventId,
) -> sqlx::Result<Option<(Shard, i64, String)>> {
    sqlx::query_as(
        "/* find_parked */ SELECT shard, id, msg_key FROM outbox_parked WHERE event_id = ?",
    )
    .bind(event)
    .fetch_optional(conn)
    .await
}

/// Locks a shard's lease row until the transaction ends: always the first statement of it.
pub(crate) async fn lock_lease(conn: &mut MySqlConnection, shard: Shard) -> sqlx::Result<()> {
    sqlx::query("/* lock_lease */ SELECT 1 FROM outbox_lease WHERE shard = ? FOR UPDATE")
        .bind(shard)
        .fetch_one(conn)
        .await?;
    Ok(())
}

/// Makes the shard's relay forget what it knows about parked orders, and read the shard from its beginning.
pub(crate) async fn raise_redrive_gen(
    conn: &mut MySqlConnection,
    shard: Shard,
) -> sqlx::Result<u64> {
    let raised = sqlx::query(
        "/* raise_redrive_gen */ UPDATE outbox_lease SET redrive_gen = redrive_gen + 1 WHERE shard = ?",
    )
    .bind(shard)
    .execute(conn)
    .await?;
    Ok(raised.rows_affected())
}

pub(crate) async fn delete_parked(
    conn: &mut MySqlConnection,
    rows: Parked<'_>,
) -> sqlx::Result<u64> {
    let sql = format!(
        "/* delete_parked */ DELETE /*+ INDEX(outbox_parked {}) */ FROM outbox_parked WHERE {}",
        rows.index(),
        rows.condition()
    );
    let query = sqlx::query(AssertSqlSafe(sql));
    Ok(rows.bind(query).execute(conn).await?.rows_affected())
}

/// How many rows of an order are parked.
pub(crate) async fn count_parked(
    conn: &mut MySqlConnection,
    shard: Shard,
    msg_key: &str,
) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "/* count_parked */ SELECT COUNT(*) FROM outbox_parked WHERE shard = ? AND msg_key = ?",
    )
    .bind(shard)
    .bind(msg_key)
    .fetch_one(conn)
    .await
}

/// Pauses a shard; 0 if it is paused already.
pub(crate) async fn pause(conn: &mut MySqlConnection, shard: Shard) -> sqlx::Result<u64> {
    let paused = sqlx::query(
        "/* pause */ UPDATE outbox_lease SET paused_at = UTC_TIMESTAMP(6) WHERE shard = ? AND paused_at IS NULL",
    )
    .bind(shard)
    .execute(conn)
    .await?;
    Ok(paused.rows_affected())
}

/// Ends a pause; 0 if there is none.
pub(crate) async fn resume(conn: &mut MySqlConnection, shard: Shard) -> sqlx::Result<u64> {
    let resumed = sqlx::query(
        "/* resume */ UPDATE outbox_lease SET paused_at = NULL WHERE shard = ? AND paused_at IS NOT NULL",
    )
    .bind(shard)
    .execute(conn)
    .await?;
    Ok(resumed.rows_affected())
}

/// Who holds a shard by the table, also if the lease has expired.
pub(crate) async fn owner(
    conn: &mut MySqlConnection,
    shard: Shard,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("/* owner */ SELECT owner FROM outbox_lease WHERE shard = ?")
        .bind(shard)
        .fetch_one(conn)
        .await
}
