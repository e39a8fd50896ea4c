//! What an operator changes about a shard: its redrive generation and its pause. The caller opens and commits the
//! transaction, and locks the lease row first, as the relay does before it parks rows. So no relay parks rows of the
//! shard meanwhile, and a relay that decided to park before the lock fails afterwards: `redrive_gen` is part of the
//! condition under which it may.

use shared::domain::ids::Shard;
use shared::runtime::db;
use sqlx::mysql::MySqlConnection;

/// Locks a shard's lease row until the transaction ends: always its first statement.
///
/// The shard's relay renews its lease by this row. If this process freezes, the server soon ends the session.
pub(crate) async fn lock_lease(conn: &mut MySqlConnection, shard: Shard) -> sqlx::Result<()> {
    db::shorten_idle_timeout(conn).await?;
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

/// Pauses a shard; `false` if it is paused already.
pub(crate) async fn pause(conn: &mut MySqlConnection, shard: Shard) -> sqlx::Result<bool> {
    let paused = sqlx::query(
        "/* pause */ UPDATE outbox_lease SET paused_at = UTC_TIMESTAMP(6) WHERE shard = ? AND paused_at IS NULL",
    )
    .bind(shard)
    .execute(conn)
    .await?;
    Ok(paused.rows_affected() > 0)
}

/// Ends a pause; `false` if there is none.
pub(crate) async fn resume(conn: &mut MySqlConnection, shard: Shard) -> sqlx::Result<bool> {
    let resumed = sqlx::query(
        "/* resume */ UPDATE outbox_lease SET paused_at = NULL WHERE shard = ? AND paused_at IS NOT NULL",
    )
    .bind(shard)
    .execute(conn)
    .await?;
    Ok(resumed.rows_affected() > 0)
}

/// The owner of a shard by the table, also if the lease has expired.
pub(crate) async fn owner(
    conn: &mut MySqlConnection,
    shard: Shard,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("/* owner */ SELECT owner FROM outbox_lease WHERE shard = ?")
        .bind(shard)
        .fetch_one(conn)
        .await
}
