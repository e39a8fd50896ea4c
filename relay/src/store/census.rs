//! The statements of the gauges.

use std::time::Duration;

use shared::domain::ids::Shard;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::Range;

/// The row of a shard with the lowest id.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Oldest {
    pub shard: Shard,
    pub id: i64,
    pub age: Duration,
}

/// The first row of each shard above an id, with its age by the database's clock.
///
/// The caller says from where: after a busy second a scan from 0 goes through every delete-marked row that is not
/// purged yet (measured at 12 % of the server's CPU during a drain, once a second).
pub async fn read_oldest(conn: &mut MySqlConnection, from: &[Range]) -> sqlx::Result<Vec<Oldest>> {
    let arm = "(SELECT shard, id, GREATEST(TIMESTAMPDIFF(MICROSECOND, created_at, UTC_TIMESTAMP(6)), 0) AS age_us \
               FROM outbox FORCE INDEX (PRIMARY) WHERE shard = ? AND id > ? ORDER BY id LIMIT 1)";
    let sql = format!(
        "/* read_oldest */ {}",
        vec![arm; from.len()].join(" UNION ALL ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for range in from {
        query = query.bind(range.shard).bind(range.after);
    }
    let rows = query.fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let age_us: i64 = row.try_get("age_us")?;
            Ok(Oldest {
                shard: row.try_get("shard")?,
                id: row.try_get("id")?,
                age: Duration::from_micros(u64::try_from(age_us).unwrap_or(0)),
            })
        })
        .collect()
}

pub async fn count_parked(conn: &mut MySqlConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("/* count_parked */ SELECT COUNT(*) FROM outbox_parked")
        .fetch_one(conn)
        .await
}
