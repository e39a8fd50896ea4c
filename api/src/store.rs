//! All SQL of the api, but for what `shared::domain::transition` writes.
//!
//! One statement per function; lists are bound as one JSON parameter, so every text is static and is prepared once
//! per connection. Grouped reads that lock start at the list and force the index.

mod answers;
mod events;
mod orders;
mod returns;
pub(crate) mod status_events;

use std::time::Duration;

use shared::domain::ids::Shard;
use sqlx::{MySqlConnection, Row};

pub(crate) use self::answers::{delete_expired_keys, insert_answers, read_answers};
pub(crate) use self::events::{
    EventFilter, EventRow, Position, Walk, list_events, list_events_of, now,
};
pub(crate) use self::orders::{OrderLock, OrderRow, get_order, list_orders, read_orders};
pub(crate) use self::returns::{
    ReturnFilter, ReturnRow, find_by_first_event, get_return, has_event, list_returns, owner_of,
};
use crate::backlog::Backlog;

/// What waits in one shard of the outbox, exactly; the scan waits for nobody's lock.
///
/// Measured with 686,000 rows of 640 bytes in memory, per million rows: this 1.5 to 2.3 s (0.9 s of CPU), a count by the
/// index on `id` 0.3 s (0.16 s of CPU) but without bytes, `information_schema` 1 ms, but 660,000 rows still after
/// every row was deleted. Rows deleted and not yet purged cost a quarter. A million rows that do not fit into the
/// buffer pool, on a busy machine: 5 to 11 s over all shards, 6 to 15 s in one statement. The server itself ends a scan
/// whose client is gone.
pub(crate) async fn measure_shard(
    conn: &mut MySqlConnection,
    shard: Shard,
) -> sqlx::Result<Backlog> {
    let row = sqlx::query(
        "/* measure_shard */ SELECT /*+ MAX_EXECUTION_TIME(30000) */ COUNT(*) AS row_count, \
         CAST(COALESCE(SUM(LENGTH(payload)), 0) AS UNSIGNED) AS bytes, \
         TIMESTAMPDIFF(MICROSECOND, MIN(created_at), UTC_TIMESTAMP(6)) AS age_us \
         FROM outbox FORCE INDEX (PRIMARY) WHERE shard = ?",
    )
    .bind(shard)
    .fetch_one(conn)
    .await?;
    let rows: i64 = row.try_get("row_count")?;
    let age_us: Option<i64> = row.try_get("age_us")?;
    Ok(Backlog {
        rows: rows.unsigned_abs(),
        bytes: row.try_get("bytes")?,
        // A row that committed after the statement began may be dated later than it.
        oldest_age: Duration::from_micros(age_us.unwrap_or(0).try_into().unwrap_or(0)),
    })
}
