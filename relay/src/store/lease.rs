//! The statements on `outbox_lease` and `outbox_relay`. Every time is the database's.

use std::time::Duration;

use shared::domain::ids::Shard;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

/// One row of `outbox_lease`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    pub shard: Shard,
    pub owner: Option<String>,
    pub epoch: i64,
    pub expired: bool,
    pub redrive_gen: i64,
    /// An operator paused the shard: no relay may acquire it.
    pub paused: bool,
}

/// Under which lease rows of a shard are parked; if the lease has changed since, nothing is parked.
#[derive(Debug, Clone)]
pub struct FencingToken {
    pub shard: Shard,
    pub owner: String,
    pub epoch: i64,
    pub redrive_gen: i64,
}

/// Registers this relay as live, and deletes relays without a heartbeat for ten times `ttl`.
pub async fn heartbeat(conn: &mut MySqlConnection, owner: &str, ttl: Duration) -> sqlx::Result<()> {
    sqlx::query(
        "/* heartbeat */ INSERT INTO outbox_relay (id, seen_at) VALUES (?, UTC_TIMESTAMP(6)) \
         ON DUPLICATE KEY UPDATE seen_at = UTC_TIMESTAMP(6)",
    )
    .bind(owner)
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "/* delete_dead_relays */ DELETE FROM outbox_relay \
         WHERE seen_at < UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND",
    )
    .bind(micros(ttl * 10))
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes this relay from the live relays: the others divide the shards without it.
pub async fn deregister(conn: &mut MySqlConnection, owner: &str) -> sqlx::Result<()> {
    sqlx::query("/* deregister */ DELETE FROM outbox_relay WHERE id = ?")
        .bind(owner)
        .execute(conn)
        .await?;
    Ok(())
}

/// Ids of the relays with a heartbeat within `ttl`, ascending.
pub async fn read_live_relays(
    conn: &mut MySqlConnection,
    ttl: Duration,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "/* read_live_relays */ SELECT id FROM outbox_relay \
         WHERE seen_at >= UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND ORDER BY id",
    )
    .bind(micros(ttl))
    .fetch_all(conn)
    .await
}

/// Extends every lease of this relay, including one that expired if no relay acquired it: its epoch is unchanged.
pub async fn renew(conn: &mut MySqlConnection, owner: &str, ttl: Duration) -> sqlx::Result<()> {
    sqlx::query(
        "/* renew */ UPDATE outbox_lease SET lease_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND WHERE owner = ?",
    )
    .bind(micros(ttl))
    .bind(owner)
    .execute(conn)
    .await?;
    Ok(())
}

/// All leases, ascending by shard.
pub async fn read_leases(conn: &mut MySqlConnection) -> sqlx::Result<Vec<LeaseRow>> {
    let rows = sqlx::query(
        "/* read_leases */ SELECT shard, owner, epoch, lease_until < UTC_TIMESTAMP(6) AS expired, redrive_gen, \
         paused_at IS NOT NULL AS paused FROM outbox_lease ORDER BY shard",
    )
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(LeaseRow {
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

/// Acquires those of `shards` that are free or expired and not paused. Read the leases afterwards to see which.
pub async fn acquire(
    conn: &mut MySqlConnection,
    owner: &str,
    ttl: Duration,
    shards: &[Shard],
) -> sqlx::Result<()> {
    let sql = format!(
        "/* acquire */ UPDATE outbox_lease FORCE INDEX (PRIMARY) SET owner = ?, epoch = epoch + 1, \
         lease_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND \
         WHERE shard IN ({}) AND paused_at IS NULL AND (owner IS NULL OR lease_until < UTC_TIMESTAMP(6))",
        vec!["?"; shards.len()].join(",")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql))
        .bind(owner)
        .bind(micros(ttl));
    for shard in shards {
        query = query.bind(shard);
    }
    query.execute(conn).await?;
    Ok(())
}

/// Releases a shard that this relay still owns in `epoch`: a late call must not release a lease that was acquired since.
pub async fn release(
    conn: &mut MySqlConnection,
    owner: &str,
    shard: Shard,
    epoch: i64,
) -> sqlx::Result<()> {
    sqlx::query("/* release */ UPDATE outbox_lease SET owner = NULL WHERE shard = ? AND owner = ? AND epoch = ?")
        .bind(shard)
        .bind(owner)
        .bind(epoch)
        .execute(conn)
        .await?;
    Ok(())
}

/// Releases every lease of this relay, after removing it from the live relays: a relay that finds the shards free no
/// longer counts this one.
pub async fn release_all(conn: &mut MySqlConnection, owner: &str) -> sqlx::Result<()> {
    deregister(conn, owner).await?;
    sqlx::query("/* release_all */ UPDATE outbox_lease SET owner = NULL WHERE owner = ?")
        .bind(owner)
        .execute(conn)
        .await?;
    Ok(())
}

/// Locks the lease row until the transaction ends. `false` if the shard is no longer owned under this lease.
pub async fn lock(conn: &mut MySqlConnection, token: &FencingToken) -> sqlx::Result<bool> {
    let held = sqlx::query(
        "/* lock_lease */ SELECT 1 FROM outbox_lease WHERE shard = ? AND owner = ? AND epoch = ? AND redrive_gen = ? \
         AND lease_until >= UTC_TIMESTAMP(6) FOR UPDATE",
    )
    .bind(token.shard)
    .bind(&token.owner)
    .bind(token.epoch)
    .bind(token.redrive_gen)
    .fetch_optional(conn)
    .await?;
    Ok(held.is_some())
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
