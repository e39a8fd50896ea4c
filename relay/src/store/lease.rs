//! The statements on `outbox_lease` and `outbox_relay`. Every time is the database's.

use std::time::Duration;

use shared::domain::ids::Shard;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::Tenure;

/// One row of `outbox_lease` as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub shard: Shard,
    pub owner: Option<String>,
    pub epoch: i64,
    pub expired: bool,
    pub redrive_gen: i64,
    /// An operator holds the shard back: nobody may take it.
    pub paused: bool,
}

/// Shows the other relays that we live, and forgets those that have been silent for a long time.
pub async fn beat(conn: &mut MySqlConnection, me: &str, ttl: Duration) -> sqlx::Result<()> {
    sqlx::query(
        "/* beat */ INSERT INTO outbox_relay (id, seen_at) VALUES (?, UTC_TIMESTAMP(6)) \
         ON DUPLICATE KEY UPDATE seen_at = UTC_TIMESTAMP(6)",
    )
    .bind(me)
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "/* forget_silent */ DELETE FROM outbox_relay \
         WHERE seen_at < UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND",
    )
    .bind(micros(ttl * 10))
    .execute(conn)
    .await?;
    Ok(())
}

/// Ids of the relays seen within `ttl`, ascending.
pub async fn read_live(conn: &mut MySqlConnection, ttl: Duration) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "/* read_live */ SELECT id FROM outbox_relay WHERE seen_at >= UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND \
         ORDER BY id",
    )
    .bind(micros(ttl))
    .fetch_all(conn)
    .await
}

/// Extends every lease that is still ours, also one that expired but that nobody took: its epoch is unchanged.
pub async fn renew(conn: &mut MySqlConnection, me: &str, ttl: Duration) -> sqlx::Result<()> {
    sqlx::query(
        "/* renew */ UPDATE outbox_lease SET lease_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND WHERE owner = ?",
    )
    .bind(micros(ttl))
    .bind(me)
    .execute(conn)
    .await?;
    Ok(())
}

/// Every lease, ascending by shard.
pub async fn read_all(conn: &mut MySqlConnection) -> sqlx::Result<Vec<Lease>> {
    let rows = sqlx::query(
        "/* read_all */ SELECT shard, owner, epoch, lease_until < UTC_TIMESTAMP(6) AS expired, redrive_gen, \
         paused_at IS NOT NULL AS paused FROM outbox_lease ORDER BY shard",
    )
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Lease {
                shard: row.try_get("shard")?,
                owner: row.try_get("owner")?,
                epoch: row.try_get("epoch")?,
                expired: row.try_get("expired")?,
                redrive_gen: row.try_get("redrive_gen")?,
                paused: row.try_get("paused")?,
            })
        })
        .collect()
}

/// Takes those of `shards` that are free or expired and were not paused meanwhile; who has them afterwards is read back.
pub async fn acquire(
    conn: &mut MySqlConnection,
    me: &str,
    ttl: Duration,
    shards: &[Shard],
) -> sqlx::Result<()> {
    let sql = format!(
        "/* acquire */ UPDATE outbox_lease FORCE INDEX (PRIMARY) SET owner = ?, epoch = epoch + 1, \
         lease_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND \
         WHERE shard IN ({}) AND paused_at IS NULL AND (owner IS NULL OR lease_until < UTC_TIMESTAMP(6))",
        vec!["?"; shards.len()].join(",")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(me).bind(micros(ttl));
    for shard in shards {
        query = query.bind(shard);
    }
    query.execute(conn).await?;
    Ok(())
}

/// Frees a shard that is still ours under `epoch`: a late call must not free what was taken again since.
pub async fn release(
    conn: &mut MySqlConnection,
    me: &str,
    shard: Shard,
    epoch: i64,
) -> sqlx::Result<()> {
    sqlx::query("/* release */ UPDATE outbox_lease SET owner = NULL WHERE shard = ? AND owner = ? AND epoch = ?")
        .bind(shard)
        .bind(me)
        .bind(epoch)
        .execute(conn)
        .await?;
    Ok(())
}

/// Takes our name off the list: the others divide the shards without us.
pub async fn sign_off(conn: &mut MySqlConnection, me: &str) -> sqlx::Result<()> {
    sqlx::query("/* sign_off */ DELETE FROM outbox_relay WHERE id = ?")
        .bind(me)
        .execute(conn)
        .await?;
    Ok(())
}

/// Frees whatever is ours, after our name is off the list: whoever finds the shards free counts us no more.
pub async fn leave(conn: &mut MySqlConnection, me: &str) -> sqlx::Result<()> {
    sign_off(conn, me).await?;
    sqlx::query("/* release_all */ UPDATE outbox_lease SET owner = NULL WHERE owner = ?")
        .bind(me)
        .execute(conn)
        .await?;
    Ok(())
}

/// Locks the lease row until the transaction ends; `false` if the shard is no longer held under these terms.
pub(super) async fn lock_tenure(conn: &mut MySqlConnection, tenure: &Tenure) -> sqlx::Result<bool> {
    let held = sqlx::query(
        "/* lock_tenure */ SELECT 1 FROM outbox_lease WHERE shard = ? AND owner = ? AND epoch = ? AND redrive_gen = ? \
         AND lease_until >= UTC_TIMESTAMP(6) FOR UPDATE",
    )
    .bind(tenure.shard)
    .bind(&tenure.owner)
    .bind(tenure.epoch)
    .bind(tenure.redrive_gen)
    .fetch_optional(conn)
    .await?;
    Ok(held.is_some())
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
