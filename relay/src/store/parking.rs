//! Moving rows from `outbox` to `outbox_parked`.

use serde_json::{Value, json};
use shared::domain::ids::{ReturnId, Shard};
use shared::runtime::db;
use sqlx::{AssertSqlSafe, MySqlConnection};

use super::lease::{self, FencingToken};
use crate::pending::RowKey;

/// A row that leaves the outbox without having been sent.
#[derive(Debug, Clone)]
pub struct RowToPark {
    pub key: RowKey,
    pub reason: String,
    pub attempts: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParkOutcome {
    Parked,
    /// The lease, the redrive generation or a row has changed; nothing was moved.
    Stale,
}

/// The first parked row of a return.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ParkedRow {
    pub shard: Shard,
    pub msg_key: String,
    #[sqlx(rename = "aggregate_id")]
    pub return_id: ReturnId,
    pub seq: i32,
}

/// Reads the first parked row of each return that has one in these shards.
pub async fn read_parked_keys(
    conn: &mut MySqlConnection,
    shards: &[Shard],
) -> sqlx::Result<Vec<ParkedRow>> {
    let sql = format!(
        "/* read_parked_keys */ SELECT shard, msg_key, aggregate_id, MIN(seq) AS seq FROM outbox_parked FORCE INDEX (PRIMARY) \
         WHERE shard IN ({}) GROUP BY shard, msg_key, aggregate_id",
        vec!["?"; shards.len()].join(",")
    );
    let mut query = sqlx::query_as(AssertSqlSafe(sql));
    for shard in shards {
        query = query.bind(shard);
    }
    query.fetch_all(conn).await
}

/// Parks rows of one shard, all or none. Locks the lease row first, as redrive and discard do.
///
/// Run it in a transaction, and roll back unless it returns [`ParkOutcome::Parked`]. The connection keeps a short idle
/// timeout, so use it only for parking.
pub async fn park(
    conn: &mut MySqlConnection,
    token: &FencingToken,
    rows: &[RowToPark],
) -> sqlx::Result<ParkOutcome> {
    db::shorten_idle_timeout(conn).await?;
    if !lease::lock(conn, token).await? {
        return Ok(ParkOutcome::Stale);
    }
    let wanted = as_json(rows);
    let copied = copy_to_parked(conn, token.shard, &wanted).await?;
    let deleted = delete_copied(conn, token.shard, &wanted).await?;
    let is_complete = usize::try_from(copied) == Ok(rows.len()) && deleted == copied;
    Ok(if is_complete {
        ParkOutcome::Parked
    } else {
        ParkOutcome::Stale
    })
}

/// The parameter of the two `JSON_TABLE`s below.
fn as_json(rows: &[RowToPark]) -> String {
    let row = |row: &RowToPark| {
        let event_id = row.key.event_id.0.simple().to_string();
        json!([row.key.id, event_id, row.reason, row.attempts])
    };
    Value::from_iter(rows.iter().map(row)).to_string()
}

async fn copy_to_parked(
    conn: &mut MySqlConnection,
    shard: Shard,
    wanted: &str,
) -> sqlx::Result<u64> {
    let copied = sqlx::query(
        "/* copy_to_parked */ INSERT INTO outbox_parked (shard, id, event_id, aggregate_id, seq, event_type, topic, \
         msg_key, payload, traceparent, tracestate, created_at, first_error, attempts, parked_at) \
         SELECT o.shard, o.id, o.event_id, o.aggregate_id, o.seq, o.event_type, o.topic, o.msg_key, o.payload, \
         o.traceparent, o.tracestate, o.created_at, w.reason, w.attempts, UTC_TIMESTAMP(6) \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$[0]', event_id CHAR(32) PATH '$[1]', \
         reason TEXT PATH '$[2]', attempts INT PATH '$[3]')) AS w STRAIGHT_JOIN outbox AS o FORCE INDEX (PRIMARY) \
         ON o.shard = ? AND o.id = w.id AND o.event_id = UNHEX(w.event_id)",
    )
    .bind(wanted)
    .bind(shard)
    .execute(conn)
    .await?;
    Ok(copied.rows_affected())
}

async fn delete_copied(
    conn: &mut MySqlConnection,
    shard: Shard,
    wanted: &str,
) -> sqlx::Result<u64> {
    let deleted = sqlx::query(
        "/* delete_copied */ DELETE o FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$[0]', \
         event_id CHAR(32) PATH '$[1]')) AS w STRAIGHT_JOIN outbox AS o FORCE INDEX (PRIMARY) \
         ON o.shard = ? AND o.id = w.id AND o.event_id = UNHEX(w.event_id)",
    )
    .bind(wanted)
    .bind(shard)
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected())
}
