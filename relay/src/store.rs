//! Every statement of the relay on the outbox: read, look up predecessors, delete, park. The leases' statements
//! are in `store/lease.rs`, those of the gauges in `store/census.rs`.
//!
//! Grouped statements are safe by construction against locking more than their rows: each forces the primary key
//! (with statistics taken while the table was empty, an id list becomes a scan that waits for uncommitted inserts).

pub mod census;
pub mod lease;

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use serde_json::{Value, json};
use shared::domain::ids::Shard;
use shared::runtime::db;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row};
use time::OffsetDateTime;

use crate::pending::{Pending, RowKey};
use crate::predecessor::{Found, Suspect};

/// Rows of one shard above an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub shard: Shard,
    pub after: i64,
}

/// What one read brought.
#[derive(Debug)]
pub struct Batch {
    /// In `(shard, id)` order.
    pub rows: Vec<Pending>,
    /// There may be more: the row or the byte limit was reached.
    pub full: bool,
    /// It was the byte limit.
    pub over_bytes: bool,
}

/// How much one read may bring.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    pub rows: usize,
    pub bytes: usize,
}

/// Reads the pending set of `ranges`, which ascend by shard: plain, non-locking, in `(shard, id)` order.
///
/// One index range per shard in one statement: measured at a third of the server's CPU of a `UNION ALL` with an arm
/// per shard, and at half of it when there is nothing to read.
pub async fn read_pending(
    conn: &mut MySqlConnection,
    ranges: &[Range],
    limit: ReadLimit,
) -> sqlx::Result<Batch> {
    let sql = format!(
        "/* read_pending */ SELECT shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, \
         traceparent, tracestate, created_at, UTC_TIMESTAMP(6) AS now FROM outbox FORCE INDEX (PRIMARY) \
         WHERE {} ORDER BY shard, id LIMIT ?",
        any_of("(shard = ? AND id > ?)", ranges.len())
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for range in ranges {
        query = query.bind(range.shard).bind(range.after);
    }
    let row_limit = i64::try_from(limit.rows).unwrap_or(i64::MAX);
    let mut stream = query.bind(row_limit).fetch(conn);
    let mut rows = Vec::new();
    let (mut bytes, mut over_bytes) = (0, false);
    let mut clock = None;
    while let Some(row) = stream.try_next().await? {
        // The rest of the answer is still read off the wire, one row at a time, but not kept.
        if over_bytes {
            continue;
        }
        let clock = match clock {
            Some(clock) => clock,
            None => *clock.insert((Instant::now(), row.try_get("now")?)),
        };
        let pending = decode(&row, clock)?;
        bytes += pending.payload.len();
        rows.push(pending);
        over_bytes = bytes >= limit.bytes;
    }
    let full = over_bytes || rows.len() >= limit.rows;
    Ok(Batch {
        rows,
        full,
        over_bytes,
    })
}

/// `clock` is one moment on this process's monotonic clock and on the database's.
fn decode(row: &MySqlRow, clock: (Instant, OffsetDateTime)) -> sqlx::Result<Pending> {
    let created_at: OffsetDateTime = row.try_get(11)?;
    let age = Duration::try_from(clock.1 - created_at).unwrap_or_default();
    Ok(Pending {
        key: RowKey {
            shard: row.try_get(0)?,
            id: row.try_get(1)?,
            event_id: row.try_get(2)?,
        },
        return_id: row.try_get(3)?,
        seq: row.try_get(4)?,
        event_type: row.try_get(5)?,
        topic: row.try_get(6)?,
        msg_key: row.try_get(7)?,
        payload: row.try_get(8)?,
        traceparent: row.try_get(9)?,
        tracestate: row.try_get(10)?,
        created_at,
        born: clock.0.checked_sub(age).unwrap_or(clock.0),
    })
}

/// Reads what may have to go before the suspects: rows of their returns in the outbox, in each shard from 0 up to its
/// highest suspect, and parked rows of their orders. One statement, so one snapshot: a row that is being put back is
/// in one of the two.
///
/// Each shard is scanned once, not once per suspect; which row is before which suspect is decided by the caller. A
/// join with `JSON_TABLE` is no choice: it takes ten times as long, or parses the list again for every row.
pub async fn read_predecessors(
    conn: &mut MySqlConnection,
    suspects: &[Suspect],
) -> sqlx::Result<Vec<Found>> {
    let Some(last) = suspects.last() else {
        return Ok(Vec::new());
    };
    let padded = suspects.len().next_power_of_two();
    let listed = || suspects.iter().chain(std::iter::repeat(last)).take(padded);
    let list = vec!["?"; padded].join(",");
    let tops = tops(suspects);
    let sql = format!(
        "/* read_predecessors */ SELECT o.aggregate_id, o.seq, o.id, NULL AS msg_key FROM outbox AS o \
         FORCE INDEX (PRIMARY) WHERE ({}) AND o.aggregate_id IN ({list}) \
         UNION ALL SELECT p.aggregate_id, p.seq, p.id, p.msg_key FROM outbox_parked AS p FORCE INDEX (msg_key) \
         WHERE p.msg_key IN ({list})",
        any_of("(o.shard = ? AND o.id < ?)", tops.len())
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for top in &tops {
        query = query.bind(top.shard).bind(top.after);
    }
    for suspect in listed() {
        query = query.bind(suspect.return_id);
    }
    for suspect in listed() {
        query = query.bind(&suspect.msg_key);
    }
    let rows = query.fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            Ok(match row.try_get(3)? {
                Some(msg_key) => Found::Parked { msg_key },
                None => Found::Waiting {
                    return_id: row.try_get(0)?,
                    seq: row.try_get(1)?,
                    id: row.try_get(2)?,
                },
            })
        })
        .collect()
}

/// The highest suspect of each shard.
fn tops(suspects: &[Suspect]) -> Vec<Range> {
    let mut tops: Vec<Range> = Vec::new();
    for suspect in suspects {
        let RowKey { shard, id, .. } = suspect.key;
        match tops.iter_mut().find(|top| top.shard == shard) {
            Some(top) => top.after = top.after.max(id),
            None => tops.push(Range { shard, after: id }),
        }
    }
    tops
}

/// Most rows of one DELETE.
pub const DELETE_GROUP: usize = 1024;

/// Deletes exactly these rows, if they are still there; answers how many were.
///
/// Row constructors over the forced primary key: measured at 2.2 CPU seconds of the server per 100,000 rows against
/// 2.5 for a join with `JSON_TABLE`. The list is padded with its last row to a power of two, so that there are eleven
/// texts to prepare and not a thousand.
pub async fn delete_published(conn: &mut MySqlConnection, keys: &[RowKey]) -> sqlx::Result<u64> {
    let Some(last) = keys.last() else {
        return Ok(0);
    };
    let padded = keys.len().next_power_of_two();
    let sql = format!(
        "/* delete_published */ DELETE /*+ INDEX(outbox PRIMARY) */ FROM outbox WHERE (shard, id, event_id) IN ({})",
        vec!["(?,?,?)"; padded].join(",")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for key in keys.iter().chain(std::iter::repeat(last)).take(padded) {
        query = query.bind(key.shard).bind(key.id).bind(key.event_id);
    }
    Ok(query.execute(conn).await?.rows_affected())
}

/// The message keys that have parked rows in these shards, with their shard.
pub async fn read_parked_keys(
    conn: &mut MySqlConnection,
    shards: &[Shard],
) -> sqlx::Result<Vec<(Shard, String)>> {
    let sql = format!(
        "/* read_parked_keys */ SELECT DISTINCT shard, msg_key FROM outbox_parked FORCE INDEX (PRIMARY) \
         WHERE shard IN ({})",
        vec!["?"; shards.len()].join(",")
    );
    let mut query = sqlx::query_as(AssertSqlSafe(sql));
    for shard in shards {
        query = query.bind(shard);
    }
    query.fetch_all(conn).await
}

/// The right by which rows of a shard are parked.
#[derive(Debug, Clone)]
pub struct Tenure {
    pub shard: Shard,
    pub owner: String,
    pub epoch: i64,
    pub redrive_gen: i64,
}

/// A row that leaves the outbox without having been sent.
#[derive(Debug, Clone)]
pub struct Parking {
    pub key: RowKey,
    pub reason: String,
    pub attempts: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParkOutcome {
    Parked,
    /// The lease, the redrive generation or a row changed meanwhile; nothing was moved.
    Stale,
}

/// Moves rows of one shard to `outbox_parked`, all or none. The lease row is locked first, as by redrive and discard.
///
/// # Errors
/// A database error. The session must not be used again: its patience may not have been restored.
pub async fn park(
    conn: &mut MySqlConnection,
    tenure: &Tenure,
    rows: &[Parking],
) -> sqlx::Result<ParkOutcome> {
    db::shorten_idle_timeout(conn).await?;
    let outcome = park_under_lock(conn, tenure, rows).await?;
    db::restore_idle_timeout(conn).await?;
    Ok(outcome)
}

async fn park_under_lock(
    conn: &mut MySqlConnection,
    tenure: &Tenure,
    rows: &[Parking],
) -> sqlx::Result<ParkOutcome> {
    let wanted: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!([
                row.key.id,
                row.key.event_id.0.simple().to_string(),
                row.reason,
                row.attempts
            ])
        })
        .collect();
    let wanted = Value::from(wanted).to_string();
    let mut tx = conn.begin().await?;
    if !lease::lock_tenure(&mut tx, tenure).await? {
        tx.rollback().await?;
        return Ok(ParkOutcome::Stale);
    }
    let copied = copy_to_parked(&mut tx, tenure.shard, &wanted).await?;
    let deleted = delete_copied(&mut tx, tenure.shard, &wanted).await?;
    if usize::try_from(copied) == Ok(rows.len()) && deleted == copied {
        tx.commit().await?;
        Ok(ParkOutcome::Parked)
    } else {
        tx.rollback().await?;
        Ok(ParkOutcome::Stale)
    }
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

/// `condition` `count` times, joined by OR.
fn any_of(condition: &str, count: usize) -> String {
    vec![condition; count].join(" OR ")
}
