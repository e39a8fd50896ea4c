//! Parked rows, and their way back to the outbox. Under the lock of the shard's lease row (`leases::lock_lease`).
//!
//! Beside `shared::domain::outbox` this is the only place that inserts into `outbox`: the rows are the writer's own, with
//! their ids, and nothing about a return changes.

use serde_json::{Value, json};
use shared::domain::ids::{EventId, Shard};
use shared::domain::trace_context::TraceContext;
use sqlx::mysql::{MySqlArguments, MySqlConnection};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, FromRow, MySql, Row};

/// Parked rows of one shard.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ParkedRows<'a> {
    /// Every row of these orders, at least one order.
    Orders(Shard, &'a [String]),
    Row(Shard, i64, EventId),
    /// At least one row.
    Ids(Shard, &'a [RowId]),
}

/// Identifies a row of a shard, as the relay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct RowId {
    pub(crate) id: i64,
    pub(crate) event_id: EventId,
}

impl ParkedRows<'_> {
    pub(super) fn condition(&self) -> String {
        match self {
            Self::Orders(_, keys) => {
                format!(
                    "shard = ? AND msg_key IN ({})",
                    vec!["?"; keys.len()].join(",")
                )
            }
            Self::Row(..) => "shard = ? AND id = ? AND event_id = ?".to_owned(),
            Self::Ids(_, rows) => these(rows),
        }
    }

    /// Forced, because with statistics from an empty table a list becomes a scan.
    pub(super) fn index(&self) -> &'static str {
        match self {
            Self::Orders(..) => "msg_key",
            Self::Row(..) | Self::Ids(..) => "PRIMARY",
        }
    }

    pub(super) fn bind<'q>(
        self,
        query: Query<'q, MySql, MySqlArguments>,
    ) -> Query<'q, MySql, MySqlArguments> {
        match self {
            Self::Orders(shard, keys) => keys
                .iter()
                .fold(query.bind(shard), |query, key| query.bind(key.clone())),
            Self::Row(shard, id, event) => query.bind(shard).bind(id).bind(event),
            Self::Ids(shard, rows) => bind_these(query.bind(shard), rows),
        }
    }
}

fn these(rows: &[RowId]) -> String {
    let list = vec!["(?,?)"; rows.len()].join(",");
    format!("shard = ? AND (id, event_id) IN ({list})")
}

fn bind_these<'q>(
    query: Query<'q, MySql, MySqlArguments>,
    rows: &[RowId],
) -> Query<'q, MySql, MySqlArguments> {
    rows.iter()
        .fold(query, |query, row| query.bind(row.id).bind(row.event_id))
}

/// Where rows of a topic are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowsOfTopic {
    Waiting,
    Parked,
}

/// Rows of a topic in one shard above an id, lowest id first.
pub(crate) async fn rows_of_topic(
    conn: &mut MySqlConnection,
    which: RowsOfTopic,
    shard: Shard,
    topic: &str,
    after: i64,
    limit: usize,
) -> sqlx::Result<Vec<RowId>> {
    let table = match which {
        RowsOfTopic::Waiting => "outbox",
        RowsOfTopic::Parked => "outbox_parked",
    };
    let sql = format!(
        "/* rows_of_topic */ SELECT id, event_id FROM {table} FORCE INDEX (PRIMARY) \
         WHERE shard = ? AND id > ? AND topic = ? ORDER BY id LIMIT ?"
    );
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(shard)
        .bind(after)
        .bind(topic)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(conn)
        .await
}

/// Copies waiting rows to `outbox_parked`. They count as refused, so that they are shown as the cause.
pub(crate) async fn copy_to_parked(
    conn: &mut MySqlConnection,
    shard: Shard,
    rows: &[RowId],
    why: &str,
) -> sqlx::Result<u64> {
    let sql = format!(
        "/* copy_to_parked */ INSERT INTO outbox_parked (shard, id, event_id, aggregate_id, seq, event_type, topic, \
         msg_key, payload, traceparent, tracestate, created_at, first_error, attempts, parked_at) \
         SELECT shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, traceparent, tracestate, \
         created_at, ?, 1, UTC_TIMESTAMP(6) FROM outbox FORCE INDEX (PRIMARY) WHERE {} ORDER BY id",
        these(rows)
    );
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(why.to_owned())
        .bind(shard);
    Ok(bind_these(query, rows).execute(conn).await?.rows_affected())
}

/// Deletes waiting rows after [`copy_to_parked`].
pub(crate) async fn delete_waiting(
    conn: &mut MySqlConnection,
    shard: Shard,
    rows: &[RowId],
) -> sqlx::Result<u64> {
    let sql = format!(
        "/* delete_waiting */ DELETE /*+ INDEX(outbox PRIMARY) */ FROM outbox WHERE {}",
        these(rows)
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(shard);
    Ok(bind_these(query, rows).execute(conn).await?.rows_affected())
}

/// Gives parked rows another topic.
pub(crate) async fn move_parked(
    conn: &mut MySqlConnection,
    rows: ParkedRows<'_>,
    to: &str,
) -> sqlx::Result<u64> {
    let sql = format!(
        "/* move_parked */ UPDATE /*+ INDEX(outbox_parked {}) */ outbox_parked SET topic = ? WHERE {}",
        rows.index(),
        rows.condition()
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(to.to_owned());
    Ok(rows.bind(query).execute(conn).await?.rows_affected())
}

/// Where an event is parked, and its order.
pub(crate) async fn find_parked(
    conn: &mut MySqlConnection,
    event: EventId,
) -> sqlx::Result<Option<(Shard, i64, String)>> {
    sqlx::query_as(
        "/* find_parked */ SELECT shard, id, msg_key FROM outbox_parked WHERE event_id = ?",
    )
    .bind(event)
    .fetch_optional(conn)
    .await
}

/// An order with parked rows.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct ParkedKey {
    pub(crate) shard: Shard,
    pub(crate) msg_key: String,
    pub(crate) parked_rows: i64,
}

/// Which parked rows are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    Order(String),
    Shard(Shard),
    All,
}

/// The orders with parked rows, by shard; in each the one with the lowest id first.
pub(crate) async fn parked_keys(
    conn: &mut MySqlConnection,
    scope: &Scope,
) -> sqlx::Result<Vec<ParkedKey>> {
    let (key, shard) = match scope {
        Scope::Order(key) => (Some(key), None),
        Scope::Shard(shard) => (None, Some(*shard)),
        Scope::All => (None, None),
    };
    sqlx::query_as(
        "/* parked_keys */ SELECT shard, msg_key, COUNT(*) AS parked_rows FROM outbox_parked \
         FORCE INDEX (msg_key) WHERE (? IS NULL OR msg_key = ?) AND (? IS NULL OR shard = ?) \
         GROUP BY shard, msg_key ORDER BY shard, MIN(id)",
    )
    .bind(key)
    .bind(key)
    .bind(shard)
    .bind(shard)
    .fetch_all(conn)
    .await
}

/// The number of parked rows of an order.
pub(crate) async fn count_parked(
    conn: &mut MySqlConnection,
    shard: Shard,
    msg_key: &str,
) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "/* count_parked */ SELECT COUNT(*) FROM outbox_parked WHERE shard = ? AND msg_key = ?",
    )
    .bind(shard)
    .bind(msg_key)
    .fetch_one(conn)
    .await
}

/// The contexts of parked rows, by id; a row without one, or with a broken one, is left out.
pub(crate) async fn parked_traces(
    conn: &mut MySqlConnection,
    rows: ParkedRows<'_>,
) -> sqlx::Result<Vec<(i64, TraceContext)>> {
    let sql = format!(
        "/* parked_traces */ SELECT id, traceparent, tracestate FROM outbox_parked FORCE INDEX ({}) WHERE {}",
        rows.index(),
        rows.condition()
    );
    let query = rows.bind(sqlx::query(AssertSqlSafe(sql)));
    let mut traces = Vec::new();
    for row in query.fetch_all(conn).await? {
        let (parent, state): (Option<&str>, Option<&str>) = (row.try_get(1)?, row.try_get(2)?);
        if let Some(trace) = TraceContext::from_headers(parent, state) {
            traces.push((row.try_get(0)?, trace));
        }
    }
    Ok(traces)
}

/// Gives parked rows of a shard other contexts.
pub(crate) async fn set_parked_traces(
    conn: &mut MySqlConnection,
    shard: Shard,
    traces: &[(i64, TraceContext)],
) -> sqlx::Result<u64> {
    let new =
        |(id, trace): &(i64, TraceContext)| json!([id, trace.traceparent(), trace.tracestate()]);
    let list: Vec<Value> = traces.iter().map(new).collect();
    let changed = sqlx::query(
        "/* set_parked_traces */ UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$[0]', \
         traceparent VARCHAR(55) PATH '$[1]', tracestate VARCHAR(512) PATH '$[2]')) AS new \
         STRAIGHT_JOIN outbox_parked AS p FORCE INDEX (PRIMARY) ON p.shard = ? AND p.id = new.id \
         SET p.traceparent = new.traceparent, p.tracestate = new.tracestate",
    );
    let changed = changed.bind(json!(list).to_string()).bind(shard);
    Ok(changed.execute(conn).await?.rows_affected())
}

/// Puts rows back into the outbox under their own `(shard, id)`: their order is their ids.
pub(crate) async fn copy_back(
    conn: &mut MySqlConnection,
    rows: ParkedRows<'_>,
) -> sqlx::Result<u64> {
    let sql = format!(
        "/* copy_back */ INSERT INTO outbox (shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, \
         payload, traceparent, tracestate, created_at) \
         SELECT shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, traceparent, tracestate, \
         created_at FROM outbox_parked FORCE INDEX ({}) WHERE {} ORDER BY id",
        rows.index(),
        rows.condition()
    );
    let query = sqlx::query(AssertSqlSafe(sql));
    Ok(rows.bind(query).execute(conn).await?.rows_affected())
}

pub(crate) async fn delete_parked(
    conn: &mut MySqlConnection,
    rows: ParkedRows<'_>,
) -> sqlx::Result<u64> {
    let sql = format!(
        "/* delete_parked */ DELETE /*+ INDEX(outbox_parked {}) */ FROM outbox_parked WHERE {}",
        rows.index(),
        rows.condition()
    );
    let query = sqlx::query(AssertSqlSafe(sql));
    Ok(rows.bind(query).execute(conn).await?.rows_affected())
}
