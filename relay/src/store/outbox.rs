//! Reading and deleting rows of `outbox`.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use shared::domain::ids::Shard;
use shared::domain::trace_context::TraceContext;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use time::OffsetDateTime;

use crate::pending::{Pending, RowKey};
use crate::predecessor::{RowBefore, UnverifiedRow};

/// The rows of one shard above an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardRange {
    pub shard: Shard,
    pub after: i64,
}

/// The rows of one read.
#[derive(Debug)]
pub struct Batch {
    /// In `(shard, id)` order.
    pub rows: Vec<Pending>,
    /// The read reached the row limit or the byte limit, so there may be more rows.
    pub is_full: bool,
    /// The read reached the byte limit.
    pub is_over_bytes: bool,
}

/// The size at which a read ends.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    pub rows: usize,
    pub bytes: usize,
}

/// Reads pending rows of `ranges`, which ascend by shard, without locks and in `(shard, id)` order.
///
/// One statement with one index range per shard. Measured against a `UNION ALL` with one arm per shard, it takes a third
/// of the server's CPU, and half of it when there is nothing to read.
pub async fn read_pending(
    conn: &mut MySqlConnection,
    ranges: &[ShardRange],
    limit: ReadLimit,
) -> sqlx::Result<Batch> {
    let sql = format!(
        "/* read_pending */ SELECT shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, \
         traceparent, tracestate, created_at, UTC_TIMESTAMP(6) AS now FROM outbox FORCE INDEX (PRIMARY) \
         WHERE {} ORDER BY shard, id LIMIT ?",
        any_of("(shard = ? AND id > ?)", padded(ranges).count())
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for range in padded(ranges) {
        query = query.bind(range.shard).bind(range.after);
    }
    let row_limit = i64::try_from(limit.rows).unwrap_or(i64::MAX);
    let mut stream = query.bind(row_limit).fetch(conn);
    let mut rows = Vec::new();
    let (mut bytes, mut is_over_bytes) = (0, false);
    let mut clock = None;
    while let Some(row) = stream.try_next().await? {
        // The connection can be used again only after the whole response is read.
        if is_over_bytes {
            continue;
        }
        let clock = match clock {
            Some(clock) => clock,
            None => *clock.insert((Instant::now(), row.try_get("now")?)),
        };
        let pending = decode(&row, clock)?;
        bytes += pending.payload.len();
        rows.push(pending);
        is_over_bytes = bytes >= limit.bytes;
    }
    Ok(Batch {
        is_full: is_over_bytes || rows.len() >= limit.rows,
        is_over_bytes,
        rows,
    })
}

/// `clock` is one moment on this process's monotonic clock and on the database's clock.
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
        trace: TraceContext::from_headers(
            row.try_get::<Option<&str>, _>(9)?,
            row.try_get::<Option<&str>, _>(10)?,
        ),
        created_at,
        created: clock.0.checked_sub(age).unwrap_or(clock.0),
    })
}

/// Reads the rows that may have to be sent before the `unverified` rows: rows of their returns in the outbox, in each
/// shard from its beginning up to its highest unverified row, and parked rows of their orders. One statement reads one
/// snapshot, so a row that is being put back is in exactly one of the two tables.
///
/// Each shard is scanned once, not once per unverified row; the caller decides which row comes before which. A join with
/// `JSON_TABLE` takes ten times as long, or parses the list again for every row.
pub async fn read_predecessors(
    conn: &mut MySqlConnection,
    unverified: &[UnverifiedRow],
) -> sqlx::Result<Vec<RowBefore>> {
    if unverified.is_empty() {
        return Ok(Vec::new());
    }
    let list = vec!["?"; padded(unverified).count()].join(",");
    let highest = highest_of_each_shard(unverified);
    let sql = format!(
        "/* read_predecessors */ SELECT o.aggregate_id, o.seq, o.id, o.topic, NULL AS msg_key FROM outbox AS o \
         FORCE INDEX (PRIMARY) WHERE ({}) AND o.aggregate_id IN ({list}) \
         UNION ALL SELECT p.aggregate_id, p.seq, p.id, p.topic, p.msg_key FROM outbox_parked AS p FORCE INDEX (msg_key) \
         WHERE p.msg_key IN ({list})",
        any_of("(o.shard = ? AND o.id < ?)", padded(&highest).count())
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for (shard, id) in padded(&highest) {
        query = query.bind(shard).bind(id);
    }
    for row in padded(unverified) {
        query = query.bind(row.return_id);
    }
    for row in padded(unverified) {
        query = query.bind(&row.msg_key);
    }
    let rows = query.fetch_all(conn).await?;
    rows.iter().map(decode_row_before).collect()
}

fn decode_row_before(row: &MySqlRow) -> sqlx::Result<RowBefore> {
    Ok(match row.try_get(4)? {
        Some(msg_key) => RowBefore::Parked {
            msg_key,
            return_id: row.try_get(0)?,
            seq: row.try_get(1)?,
        },
        None => RowBefore::InOutbox {
            return_id: row.try_get(0)?,
            seq: row.try_get(1)?,
            id: row.try_get(2)?,
            topic: row.try_get(3)?,
        },
    })
}

fn highest_of_each_shard(rows: &[UnverifiedRow]) -> Vec<(Shard, i64)> {
    let mut highest: Vec<(Shard, i64)> = Vec::new();
    for row in rows {
        let RowKey { shard, id, .. } = row.key;
        match highest.iter_mut().find(|(of, _)| *of == shard) {
            Some((_, highest)) => *highest = id.max(*highest),
            None => highest.push((shard, id)),
        }
    }
    highest
}

/// The maximum number of rows of one DELETE.
pub const MAX_DELETE_ROWS: usize = 1024;

/// Deletes exactly these rows. Returns how many of them were still there.
///
/// Row constructors with the primary key forced take 2.2 CPU seconds of the server per 100,000 rows; a join with
/// `JSON_TABLE` takes 2.5.
pub async fn delete_published(conn: &mut MySqlConnection, keys: &[RowKey]) -> sqlx::Result<u64> {
    if keys.is_empty() {
        return Ok(0);
    }
    let sql = format!(
        "/* delete_published */ DELETE /*+ INDEX(outbox PRIMARY) */ FROM outbox WHERE (shard, id, event_id) IN ({})",
        vec!["(?,?,?)"; padded(keys).count()].join(",")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for key in padded(keys) {
        query = query.bind(key.shard).bind(key.id).bind(key.event_id);
    }
    Ok(query.execute(conn).await?.rows_affected())
}

/// The ids of a shard above `after` and up to `up_to`, in their order.
pub(crate) async fn read_ids(
    conn: &mut MySqlConnection,
    shard: Shard,
    after: i64,
    up_to: i64,
    limit: u16,
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar(
        "/* read_ids */ SELECT id FROM outbox FORCE INDEX (PRIMARY) \
         WHERE shard = ? AND id > ? AND id <= ? ORDER BY id LIMIT ?",
    )
    .bind(shard)
    .bind(after)
    .bind(up_to)
    .bind(limit)
    .fetch_all(conn)
    .await
}

/// Repeats the last item up to a power of two, so that a list of up to a thousand items has eleven texts to prepare and not
/// a thousand.
fn padded<T>(items: &[T]) -> impl Iterator<Item = &T> {
    let count = match items.len() {
        0 => 0,
        len => len.next_power_of_two(),
    };
    items
        .iter()
        .chain(items.iter().last().into_iter().cycle())
        .take(count)
}

/// Repeats `condition` `count` times, joined by OR.
fn any_of(condition: &str, count: usize) -> String {
    vec![condition; count].join(" OR ")
}
