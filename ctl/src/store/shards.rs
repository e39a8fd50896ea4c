//! What an operator reads about the outbox as a whole: its shards with their leases, how much waits, the relays. No read locks.

use std::time::Duration;

use serde::Serialize;
use shared::domain::ids::Shard;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, FromRow};

use super::ends_within;

/// The alarm of OPERATIONS.md: a relay sends an event within milliseconds.
const OLD_SECS: f64 = 60.0;
/// Another relay takes the shards of a dead one over within a renewal.
const TAKEN_OVER_SECS: f64 = 30.0;

/// Who holds a shard, and what waits in it for longest. The names are those of `--json`.
#[derive(Debug, Clone, FromRow, Serialize)]
pub(crate) struct ShardHead {
    pub(crate) shard: Shard,
    pub(crate) owner: Option<String>,
    pub(crate) epoch: i64,
    /// Negative when the lease has expired; `None` without an owner.
    pub(crate) lease_left_secs: Option<f64>,
    /// How long ago the pause began.
    pub(crate) paused_secs: Option<f64>,
    /// Age of the row with the lowest id, as in the relay's gauge.
    pub(crate) oldest_age_secs: Option<f64>,
    /// The topic of that row.
    pub(crate) oldest_topic: Option<String>,
}

impl ShardHead {
    /// The relay with a lease that has not expired.
    pub(crate) fn living_owner(&self) -> Option<&str> {
        let valid = self.lease_left_secs.is_some_and(|left| left > 0.0);
        self.owner.as_deref().filter(|_| valid)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused_secs.is_some()
    }

    /// Its relay has died, and none has taken over.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.lease_left_secs
            .is_some_and(|left| left < -TAKEN_OVER_SECS)
    }

    /// A relay should have sent its oldest row long ago.
    pub(crate) fn is_old(&self) -> bool {
        !self.is_paused() && self.oldest_age_secs.is_some_and(|age| age > OLD_SECS)
    }

    /// Nothing sends its rows, and that is a problem already.
    pub(crate) fn is_unattended(&self) -> bool {
        !self.is_paused() && self.living_owner().is_none() && (self.is_abandoned() || self.is_old())
    }
}

/// The shards' numbers, for a person.
pub(crate) fn shard_numbers(heads: &[&ShardHead]) -> String {
    let numbers: Vec<String> = heads.iter().map(|head| head.shard.to_string()).collect();
    let noun = if numbers.len() == 1 {
        "shard"
    } else {
        "shards"
    };
    format!("{noun} {}", numbers.join(", "))
}

/// Every shard, ascending. Counts nothing, so it takes the same time however much waits.
pub(crate) async fn shard_heads(conn: &mut MySqlConnection) -> sqlx::Result<Vec<ShardHead>> {
    sqlx::query_as(
        "/* shard_heads */ SELECT l.shard, l.owner, l.epoch, \
         IF(l.owner IS NULL, NULL, TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), l.lease_until) / 1e6) AS lease_left_secs, \
         TIMESTAMPDIFF(MICROSECOND, l.paused_at, UTC_TIMESTAMP(6)) / 1e6 AS paused_secs, \
         GREATEST(TIMESTAMPDIFF(MICROSECOND, h.created_at, UTC_TIMESTAMP(6)), 0) / 1e6 AS oldest_age_secs, \
         h.topic AS oldest_topic FROM outbox_lease AS l \
         LEFT JOIN LATERAL (SELECT o.created_at, o.topic FROM outbox AS o FORCE INDEX (PRIMARY) \
         WHERE o.shard = l.shard ORDER BY o.id LIMIT 1) AS h ON TRUE ORDER BY l.shard",
    )
    .fetch_all(conn)
    .await
}

/// How much waits in a shard. The names are those of `--json`.
#[derive(Debug, Clone, Copy, FromRow, Serialize)]
pub(crate) struct ShardCounts {
    pub(crate) waiting_rows: i64,
    pub(crate) parked_rows: i64,
}

/// Every shard, ascending: about a second for each million rows.
///
/// Rows are counted over the narrow index on `id`: the clustered one holds the payloads too.
pub(crate) async fn shard_counts(
    conn: &mut MySqlConnection,
    limit: Duration,
) -> sqlx::Result<Vec<ShardCounts>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "/* shard_counts */ SELECT {} CAST(COALESCE(w.waiting, 0) AS SIGNED) AS waiting_rows, \
         CAST(COALESCE(p.parked, 0) AS SIGNED) AS parked_rows FROM outbox_lease AS l \
         LEFT JOIN (SELECT shard, COUNT(*) AS waiting FROM outbox FORCE INDEX (id) GROUP BY shard) AS w \
         ON w.shard = l.shard \
         LEFT JOIN (SELECT shard, COUNT(*) AS parked FROM outbox_parked FORCE INDEX (msg_key) GROUP BY shard) AS p \
         ON p.shard = l.shard ORDER BY l.shard",
        ends_within(limit)
    )))
    .fetch_all(conn)
    .await
}

/// What waits in the outbox, as an api measured it last. The names are those of `--json`.
#[derive(Debug, Clone, FromRow, Serialize)]
pub(crate) struct Measured {
    pub(crate) rows: i64,
    pub(crate) payload_bytes: i64,
    /// How long ago.
    pub(crate) measured_secs: f64,
}

/// `None` if no api has measured yet.
pub(crate) async fn measured(conn: &mut MySqlConnection) -> sqlx::Result<Option<Measured>> {
    sqlx::query_as(
        "/* measured */ SELECT CAST(row_count AS SIGNED) AS `rows`, CAST(payload_bytes AS SIGNED) AS payload_bytes, \
         TIMESTAMPDIFF(MICROSECOND, measured_at, UTC_TIMESTAMP(6)) / 1e6 AS measured_secs \
         FROM outbox_backlog WHERE id = 1 AND measured_at IS NOT NULL",
    )
    .fetch_optional(conn)
    .await
}

/// A relay with a heartbeat, also one that holds no shard. The names are those of `--json`.
#[derive(Debug, Clone, FromRow, Serialize)]
pub(crate) struct Relay {
    pub(crate) id: String,
    /// How long ago the last heartbeat was.
    pub(crate) seen_secs: f64,
}

/// By name. The relays delete the rows of those that are gone.
pub(crate) async fn relays(conn: &mut MySqlConnection) -> sqlx::Result<Vec<Relay>> {
    sqlx::query_as(
        "/* relays */ SELECT id, TIMESTAMPDIFF(MICROSECOND, seen_at, UTC_TIMESTAMP(6)) / 1e6 AS seen_secs \
         FROM outbox_relay ORDER BY id",
    )
    .fetch_all(conn)
    .await
}
