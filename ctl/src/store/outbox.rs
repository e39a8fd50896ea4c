//! What an operator reads about rows of the outbox that wait or are parked. No read locks.

use std::time::Duration;

use serde::Serialize;
use shared::domain::ids::{EventId, OrderId, ReturnId, Shard};
use sqlx::mysql::{MySqlArguments, MySqlConnection};
use sqlx::query::QueryAs;
use sqlx::{AssertSqlSafe, FromRow, MySql};
use time::OffsetDateTime;

use super::ends_within;

/// The rows of one topic. The names are those of `--json`.
#[derive(Debug, Clone, FromRow, Serialize)]
pub(crate) struct TopicStats {
    pub(crate) topic: String,
    pub(crate) waiting_rows: i64,
    pub(crate) oldest_age_secs: Option<f64>,
    pub(crate) parked_rows: i64,
}

/// Every topic with waiting or parked rows, the one with the oldest waiting row first.
pub(crate) async fn topic_stats(conn: &mut MySqlConnection) -> sqlx::Result<Vec<TopicStats>> {
    sqlx::query_as(
        "/* topic_stats */ SELECT topic, CAST(SUM(waiting) AS SIGNED) AS waiting_rows, \
         GREATEST(TIMESTAMPDIFF(MICROSECOND, MIN(oldest), UTC_TIMESTAMP(6)), 0) / 1e6 AS oldest_age_secs, \
         CAST(SUM(parked) AS SIGNED) AS parked_rows FROM (\
         SELECT topic, COUNT(*) AS waiting, MIN(created_at) AS oldest, 0 AS parked \
         FROM outbox FORCE INDEX (PRIMARY) GROUP BY topic \
         UNION ALL SELECT topic, 0, NULL, COUNT(*) FROM outbox_parked FORCE INDEX (PRIMARY) GROUP BY topic) AS t \
         GROUP BY topic ORDER BY MIN(oldest) IS NULL, MIN(oldest), topic",
    )
    .fetch_all(conn)
    .await
}

/// Which rows to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowFilter {
    All,
    Shard(Shard),
    Order(OrderId),
    /// Reads every row: there is no index on event ids.
    Event(EventId),
}

impl RowFilter {
    fn condition(self) -> &'static str {
        match self {
            Self::All => "TRUE",
            Self::Shard(_) => "shard = ?",
            Self::Order(_) => "shard = ? AND msg_key = ?",
            Self::Event(_) => "event_id = ?",
        }
    }

    /// The oldest rows of all shards have the lowest ids; within a shard the primary key has that order.
    fn order(self) -> (&'static str, &'static str) {
        match self {
            Self::All => ("id", "id, shard"),
            Self::Shard(_) | Self::Order(_) | Self::Event(_) => ("PRIMARY", "shard, id"),
        }
    }

    fn bind<T>(
        self,
        query: QueryAs<'_, MySql, T, MySqlArguments>,
    ) -> QueryAs<'_, MySql, T, MySqlArguments> {
        match self {
            Self::All => query,
            Self::Shard(shard) => query.bind(shard),
            Self::Order(order) => query.bind(Shard::of(order)).bind(order.to_string()),
            Self::Event(event) => query.bind(event),
        }
    }
}

/// A row that waits in the outbox or is parked.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct PeekedRow {
    pub(crate) shard: Shard,
    pub(crate) id: i64,
    pub(crate) event_id: EventId,
    #[sqlx(rename = "aggregate_id")]
    pub(crate) return_id: ReturnId,
    pub(crate) seq: i32,
    pub(crate) event_type: String,
    pub(crate) topic: String,
    pub(crate) msg_key: String,
    /// Its first [`PAYLOAD_SHOWN`] bytes at most.
    pub(crate) payload: Vec<u8>,
    pub(crate) payload_bytes: i64,
    pub(crate) traceparent: Option<String>,
    pub(crate) tracestate: Option<String>,
    pub(crate) created_at: OffsetDateTime,
    /// `None` while the row waits in the outbox.
    pub(crate) parked_at: Option<OffsetDateTime>,
    pub(crate) first_error: Option<String>,
    pub(crate) attempts: Option<i32>,
}

/// Enough to see what it is; a refused record may be megabytes long.
pub(crate) const PAYLOAD_SHOWN: i64 = 16 * 1024;

/// Waiting and parked rows, lowest id first, in one statement: a row that moves meanwhile is in one of the tables.
pub(crate) async fn peek(
    conn: &mut MySqlConnection,
    filter: RowFilter,
    limit: i64,
) -> sqlx::Result<Vec<PeekedRow>> {
    let condition = filter.condition();
    let (index, order) = filter.order();
    let columns = "shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, LEFT(payload, ?) AS payload, \
                   LENGTH(payload) AS payload_bytes, traceparent, tracestate, created_at";
    let sql = format!(
        "/* peek */ (SELECT {columns}, NULL AS parked_at, NULL AS first_error, NULL AS attempts \
         FROM outbox FORCE INDEX ({index}) WHERE {condition} ORDER BY {order} LIMIT ?) \
         UNION ALL (SELECT {columns}, parked_at, first_error, attempts \
         FROM outbox_parked FORCE INDEX (PRIMARY) WHERE {condition} ORDER BY {order} LIMIT ?) \
         ORDER BY {order} LIMIT ?"
    );
    let query = filter
        .bind(sqlx::query_as(AssertSqlSafe(sql)).bind(PAYLOAD_SHOWN))
        .bind(limit)
        .bind(PAYLOAD_SHOWN);
    filter
        .bind(query)
        .bind(limit)
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// The parked rows of one order, with the first row that was refused.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct ParkedOrder {
    pub(crate) shard: Shard,
    pub(crate) msg_key: String,
    pub(crate) parked_rows: i64,
    /// Rows that Kafka refused; 0 when those were discarded and only their followers are left.
    pub(crate) refused_rows: i64,
    pub(crate) oldest_parked_secs: f64,
    /// The first refused row, or the first row of all.
    pub(crate) id: i64,
    pub(crate) event_id: EventId,
    #[sqlx(rename = "aggregate_id")]
    pub(crate) return_id: ReturnId,
    pub(crate) seq: i32,
    pub(crate) event_type: String,
    pub(crate) topic: String,
    pub(crate) payload_bytes: i64,
    pub(crate) attempts: i32,
    pub(crate) first_error: String,
}

/// Orders with parked rows, the longest waiting first; of all orders or of one.
///
/// Grouped over narrow columns first, so that texts and payloads stay out of the temporary table.
pub(crate) async fn parked_orders(
    conn: &mut MySqlConnection,
    order: Option<OrderId>,
    limit: i64,
) -> sqlx::Result<Vec<ParkedOrder>> {
    let key = order.map(|order| order.to_string());
    sqlx::query_as(
        "/* parked_orders */ SELECT p.shard, p.msg_key, g.parked_rows, g.refused_rows, \
         TIMESTAMPDIFF(MICROSECOND, g.oldest, UTC_TIMESTAMP(6)) / 1e6 AS oldest_parked_secs, p.id, p.event_id, \
         p.aggregate_id, p.seq, p.event_type, p.topic, LENGTH(p.payload) AS payload_bytes, p.attempts, p.first_error \
         FROM (SELECT shard, msg_key, COUNT(*) AS parked_rows, CAST(SUM(attempts > 0) AS SIGNED) AS refused_rows, \
         MIN(parked_at) AS oldest, COALESCE(MIN(IF(attempts > 0, id, NULL)), MIN(id)) AS blamed \
         FROM outbox_parked WHERE ? IS NULL OR msg_key = ? GROUP BY shard, msg_key \
         ORDER BY oldest, shard, blamed LIMIT ?) AS g \
         STRAIGHT_JOIN outbox_parked AS p FORCE INDEX (PRIMARY) ON p.shard = g.shard AND p.id = g.blamed \
         ORDER BY g.oldest, p.shard, p.id",
    )
    .bind(&key)
    .bind(&key)
    .bind(limit)
    .fetch_all(conn)
    .await
}

/// The number of parked rows, and of orders with parked rows.
pub(crate) async fn parked_totals(
    conn: &mut MySqlConnection,
    limit: Duration,
) -> sqlx::Result<(i64, i64)> {
    sqlx::query_as(AssertSqlSafe(format!(
        "/* parked_totals */ SELECT {} COUNT(*), COUNT(DISTINCT msg_key) FROM outbox_parked FORCE INDEX (msg_key)",
        ends_within(limit)
    )))
    .fetch_one(conn)
    .await
}
