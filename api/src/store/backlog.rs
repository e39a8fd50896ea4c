//! What waits in the outbox: its count, and the row in which one api shows it to all.

use std::time::Duration;

use shared::domain::ids::Shard;
use shared::domain::refund::datetime;
use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

/// The size of the outbox, or of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backlog {
    pub(crate) rows: u64,
    /// Of payloads.
    pub(crate) bytes: u64,
    pub(crate) oldest_at: Option<OffsetDateTime>,
}

impl Backlog {
    pub(crate) fn plus(self, other: Self) -> Self {
        let oldest = self.oldest_at.into_iter().chain(other.oldest_at);
        Self {
            rows: self.rows + other.rows,
            bytes: self.bytes + other.bytes,
            oldest_at: oldest.min(),
        }
    }
}

/// The rows of a shard with these ids.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk {
    pub(crate) size: Backlog,
    /// `None`: there are no more.
    pub(crate) last_id: Option<i64>,
}

/// Measures up to `limit` rows of a shard exactly, above the id `after`. The scan waits for no lock.
///
/// Chunks, because a statement over a whole shard runs for as long as much waits, and what it has counted is lost at its
/// deadline. `information_schema` takes 1 ms, but still reports 660,000 rows after every row is deleted. If the client
/// disconnects, the server ends the scan itself.
pub(crate) async fn measure_shard(
    conn: &mut MySqlConnection,
    shard: Shard,
    after: i64,
    limit: u32,
) -> sqlx::Result<Chunk> {
    let row = sqlx::query(
        "/* measure_shard */ SELECT /*+ MAX_EXECUTION_TIME(4000) */ COUNT(*) AS row_count, \
         CAST(COALESCE(SUM(bytes), 0) AS UNSIGNED) AS bytes, MIN(created_at) AS oldest_at, MAX(id) AS last_id \
         FROM (SELECT id, LENGTH(payload) AS bytes, created_at FROM outbox FORCE INDEX (PRIMARY) \
         WHERE shard = ? AND id > ? ORDER BY id LIMIT ?) AS chunk",
    )
    .bind(shard)
    .bind(after)
    .bind(limit)
    .fetch_one(conn)
    .await?;
    let rows: i64 = row.try_get("row_count")?;
    Ok(Chunk {
        size: Backlog {
            rows: rows.unsigned_abs(),
            bytes: row.try_get("bytes")?,
            oldest_at: row.try_get("oldest_at")?,
        },
        last_id: row.try_get("last_id")?,
    })
}

/// The row that all apis read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// `None` also if it began in the future: the database's clock went back, and its age is not known.
    pub(crate) measurement: Option<Measurement>,
    /// What a count that has not ended has found so far: there is at least this much.
    pub(crate) counted: Option<Backlog>,
    /// The next measurement is due.
    pub(crate) is_due: bool,
    pub(crate) lease: Lease,
    /// The database's clock.
    pub(crate) now: OffsetDateTime,
}

/// The right to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) is_ours: bool,
    pub(crate) until: OffsetDateTime,
}

/// A count that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measurement {
    pub(crate) backlog: Backlog,
    /// When it began.
    pub(crate) at: OffsetDateTime,
    pub(crate) took: Duration,
}

impl Measurement {
    pub(crate) fn oldest_age(&self) -> Duration {
        // A row that was committed after the count began may have a later time.
        let age = self.backlog.oldest_at.map(|oldest| self.at - oldest);
        age.and_then(|age| age.try_into().ok()).unwrap_or_default()
    }
}

/// Reads the row; `None` if nobody has made it yet.
pub(crate) async fn read_backlog(
    conn: &mut MySqlConnection,
    me: Uuid,
) -> sqlx::Result<Option<Shown>> {
    let row = sqlx::query(
        "/* read_backlog */ SELECT counted_rows, counted_bytes, measured_at, took_us, row_count, payload_bytes, \
         oldest_at, UTC_TIMESTAMP(6) AS now, next_at, measuring_until, measurer <=> ? AS is_ours \
         FROM outbox_backlog WHERE id = 1",
    )
    .bind(me)
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(shown).transpose()
}

fn shown(row: &MySqlRow) -> sqlx::Result<Shown> {
    let now: OffsetDateTime = row.try_get("now")?;
    let next_at: OffsetDateTime = row.try_get("next_at")?;
    let measurement = measurement(row)?;
    let known = measurement.filter(|measured| measured.at <= now);
    let counted: Option<u64> = row.try_get("counted_rows")?;
    let counted_bytes: Option<u64> = row.try_get("counted_bytes")?;
    Ok(Shown {
        measurement: known,
        counted: counted.zip(counted_bytes).map(|(rows, bytes)| Backlog {
            rows,
            bytes,
            oldest_at: None,
        }),
        is_due: next_at <= now || known != measurement,
        lease: Lease {
            is_ours: row.try_get("is_ours")?,
            until: row.try_get("measuring_until")?,
        },
        now,
    })
}

fn measurement(row: &MySqlRow) -> sqlx::Result<Option<Measurement>> {
    let measured_at: Option<OffsetDateTime> = row.try_get("measured_at")?;
    let backlog = Backlog {
        rows: row.try_get("row_count")?,
        bytes: row.try_get("payload_bytes")?,
        oldest_at: row.try_get("oldest_at")?,
    };
    let took = Duration::from_micros(row.try_get("took_us")?);
    Ok(measured_at.map(|at| Measurement { backlog, at, took }))
}

/// Makes the row, if there is none.
pub(crate) async fn make_backlog(conn: &mut MySqlConnection) -> sqlx::Result<()> {
    sqlx::query(
        "/* make_backlog */ INSERT IGNORE INTO outbox_backlog (id, measuring_until, next_at) \
         VALUES (1, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the measurement over, if the lease is still as it was `seen`; `false` if not.
pub(crate) async fn take_measurement(
    conn: &mut MySqlConnection,
    me: Uuid,
    seen: Lease,
    lease: Duration,
) -> sqlx::Result<bool> {
    let taken = sqlx::query(
        "/* take_measurement */ UPDATE outbox_backlog SET measurer = ?, \
         measuring_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND WHERE id = 1 AND measuring_until = ?",
    )
    .bind(me)
    .bind(micros(lease))
    .bind(datetime(seen.until))
    .execute(conn)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Shows what was counted so far, and keeps the right to count; `false` if another api has it now.
pub(crate) async fn show_counted(
    conn: &mut MySqlConnection,
    me: Uuid,
    counted: Backlog,
    lease: Duration,
) -> sqlx::Result<bool> {
    let shown = sqlx::query(
        "/* show_counted */ UPDATE outbox_backlog SET counted_rows = ?, counted_bytes = ?, \
         measuring_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND WHERE id = 1 AND measurer = ?",
    )
    .bind(counted.rows)
    .bind(counted.bytes)
    .bind(micros(lease))
    .bind(me)
    .execute(conn)
    .await?;
    Ok(shown.rows_affected() == 1)
}

/// Shows a count that ended; `false` if another api has taken over. The next one is due after `pause`, and is ours for
/// `lease` longer.
pub(crate) async fn show_measurement(
    conn: &mut MySqlConnection,
    me: Uuid,
    measured: Measurement,
    pause: Duration,
    lease: Duration,
) -> sqlx::Result<bool> {
    let shown = sqlx::query(
        "/* show_measurement */ UPDATE outbox_backlog SET counted_rows = NULL, counted_bytes = NULL, measured_at = ?, \
         took_us = ?, row_count = ?, payload_bytes = ?, oldest_at = ?, next_at = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, \
         measuring_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND WHERE id = 1 AND measurer = ?",
    )
    .bind(datetime(measured.at))
    .bind(micros(measured.took))
    .bind(measured.backlog.rows)
    .bind(measured.backlog.bytes)
    .bind(measured.backlog.oldest_at.map(datetime))
    .bind(micros(pause))
    .bind(micros(pause + lease))
    .bind(me)
    .execute(conn)
    .await?;
    Ok(shown.rows_affected() == 1)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
