//! Reading the audit trail, for auditors. Nothing here writes: only `shared::domain::transition` does.
//!
//! Every read forces the index of its narrowest filter, because with the statistics of a small table the optimizer would
//! scan a large one. The rest of the filter is checked on the rows that the index finds.

use shared::domain::actor::ActorType;
use shared::domain::ids::{EventId, OrderId, ReturnId};
use sqlx::mysql::{MySql, MySqlConnection, MySqlRow};
use sqlx::{QueryBuilder, Row};
use time::OffsetDateTime;

/// An event exactly as it is stored, so that a tampered event is shown too.
#[derive(Debug, Clone)]
pub(crate) struct EventRow {
    pub(crate) position: Position,
    pub(crate) return_id: ReturnId,
    pub(crate) seq: i32,
    pub(crate) event_id: EventId,
    pub(crate) event_type: String,
    pub(crate) event_data: String,
    pub(crate) actor_type: String,
    pub(crate) actor_id: String,
    pub(crate) request_id: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) prev_hash: String,
    pub(crate) hash: String,
}

/// The place of an event among all events. Events of one group have the same time, so the row's id orders them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) created_at: OffsetDateTime,
    pub(crate) id: i64,
}

/// Which events to read. Every field narrows the filter.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventFilter {
    pub(crate) return_id: Option<ReturnId>,
    pub(crate) order_id: Option<OrderId>,
    pub(crate) actor_type: Option<ActorType>,
    pub(crate) actor_id: Option<String>,
    pub(crate) event_type: Option<&'static str>,
    pub(crate) created_from: Option<OffsetDateTime>,
    pub(crate) created_before: Option<OffsetDateTime>,
}

/// The direction of a read, and the position after which it continues.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Walk {
    /// For pages: events before this position.
    NewestFirst(Option<Position>),
    /// For exports: events after this position.
    OldestFirst(Option<Position>),
}

/// At most `limit` events. Keyset pagination, never OFFSET: every page costs the same.
pub(crate) async fn list_events(
    conn: &mut MySqlConnection,
    filter: &EventFilter,
    walk: Walk,
    limit: u32,
) -> sqlx::Result<Vec<EventRow>> {
    let mut query = select("list_events", source(filter));
    narrow(&mut query, filter);
    let order = match walk {
        Walk::NewestFirst(after) => {
            beyond(&mut query, "<", after);
            " ORDER BY e.created_at DESC, e.id DESC LIMIT "
        }
        Walk::OldestFirst(after) => {
            beyond(&mut query, ">", after);
            " ORDER BY e.created_at, e.id LIMIT "
        }
    };
    query.push(order).push_bind(limit);
    fetch(conn, query).await
}

/// At most `limit` events of one return, in the order of its chain, after the one with this `seq`.
pub(crate) async fn list_events_of(
    conn: &mut MySqlConnection,
    id: ReturnId,
    after_seq: i32,
    limit: u32,
) -> sqlx::Result<Vec<EventRow>> {
    let mut query = select("list_events_of", BY_RETURN);
    query.push(" AND e.return_id = ").push_bind(id);
    query.push(" AND e.seq > ").push_bind(after_seq);
    query.push(" ORDER BY e.seq LIMIT ").push_bind(limit);
    fetch(conn, query).await
}

/// The database's clock, which also dates the events.
pub(crate) async fn now(conn: &mut MySqlConnection) -> sqlx::Result<OffsetDateTime> {
    sqlx::query_scalar("/* now */ SELECT UTC_TIMESTAMP(6)")
        .fetch_one(conn)
        .await
}

/// If few rows match a filter, a statement may read much of its index. The time limit ends it, because it also delays the
/// purge of old row versions.
const COLUMNS: &str = "SELECT /*+ MAX_EXECUTION_TIME(20000) */ e.id, e.return_id, e.seq, e.event_id, e.event_type, \
                       e.event_data, e.actor_type, e.actor_id, e.request_id, e.trace_id, e.created_at, e.prev_hash, \
                       e.hash";

const BY_RETURN: &str = "return_events AS e FORCE INDEX (return_seq)";
const BY_ORDER: &str = "returns AS r FORCE INDEX (order_id) \
                        STRAIGHT_JOIN return_events AS e FORCE INDEX (return_seq) ON e.return_id = r.id";

/// The tables and the index, for the filter that leaves the fewest events.
fn source(filter: &EventFilter) -> &'static str {
    if filter.return_id.is_some() && filter.order_id.is_none() {
        BY_RETURN
    } else if filter.order_id.is_some() {
        BY_ORDER
    } else if filter.actor_id.is_some() {
        "return_events AS e FORCE INDEX (actor_created)"
    } else if filter.event_type.is_some() {
        "return_events AS e FORCE INDEX (type_created)"
    } else if filter.actor_type.is_some() {
        "return_events AS e FORCE INDEX (actor_type_created)"
    } else {
        "return_events AS e FORCE INDEX (created)"
    }
}

fn select(name: &str, source: &str) -> QueryBuilder<MySql> {
    QueryBuilder::new(format!("/* {name} */ {COLUMNS} FROM {source} WHERE TRUE"))
}

fn narrow(query: &mut QueryBuilder<MySql>, filter: &EventFilter) {
    if let Some(return_id) = filter.return_id {
        query.push(" AND e.return_id = ").push_bind(return_id);
    }
    if let Some(order_id) = filter.order_id {
        query.push(" AND r.order_id = ").push_bind(order_id);
    }
    if let Some(kind) = filter.actor_type {
        query.push(" AND e.actor_type = ").push_bind(kind.as_str());
    }
    if let Some(actor_id) = &filter.actor_id {
        query.push(" AND e.actor_id = ").push_bind(actor_id.clone());
    }
    if let Some(event_type) = filter.event_type {
        query.push(" AND e.event_type = ").push_bind(event_type);
    }
    if let Some(from) = filter.created_from {
        query.push(" AND e.created_at >= ").push_bind(from);
    }
    if let Some(before) = filter.created_before {
        query.push(" AND e.created_at < ").push_bind(before);
    }
}

/// The first condition lets the index range start at the position; a row constructor alone would not.
fn beyond(query: &mut QueryBuilder<MySql>, sign: &str, after: Option<Position>) {
    let Some(Position { created_at, id }) = after else {
        return;
    };
    query
        .push(format!(" AND e.created_at {sign}= "))
        .push_bind(created_at)
        .push(format!(" AND (e.created_at {sign} "))
        .push_bind(created_at)
        .push(format!(" OR e.id {sign} "))
        .push_bind(id)
        .push(")");
}

async fn fetch(
    conn: &mut MySqlConnection,
    mut query: QueryBuilder<MySql>,
) -> sqlx::Result<Vec<EventRow>> {
    let rows = query.build().fetch_all(conn).await?;
    rows.iter().map(event_row).collect()
}

fn event_row(row: &MySqlRow) -> sqlx::Result<EventRow> {
    Ok(EventRow {
        position: Position {
            created_at: row.try_get("created_at")?,
            id: row.try_get("id")?,
        },
        return_id: row.try_get("return_id")?,
        seq: row.try_get("seq")?,
        event_id: row.try_get("event_id")?,
        event_type: row.try_get("event_type")?,
        event_data: row.try_get("event_data")?,
        actor_type: row.try_get("actor_type")?,
        actor_id: row.try_get("actor_id")?,
        request_id: row.try_get("request_id")?,
        trace_id: row.try_get("trace_id")?,
        prev_hash: row.try_get("prev_hash")?,
        hash: row.try_get("hash")?,
    })
}
