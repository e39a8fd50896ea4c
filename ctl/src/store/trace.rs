//! What the rows of one return say about its way, for `returnsctl trace`. Each read uses an index; the outbox has none by
//! return, so a shard is read to its end.

use shared::domain::ids::{OrderId, ReturnId, Shard};
use sqlx::FromRow;
use sqlx::mysql::MySqlConnection;
use time::OffsetDateTime;

/// An event of a return, and the context of the change.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct TracedEvent {
    pub(crate) seq: i32,
    pub(crate) event_type: String,
    pub(crate) actor_type: String,
    pub(crate) actor_id: String,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) trace_id: Option<String>,
    /// `None` in rows from before it was stored.
    pub(crate) trace_flags: Option<u8>,
}

pub(crate) async fn traced_events(
    conn: &mut MySqlConnection,
    id: ReturnId,
) -> sqlx::Result<Vec<TracedEvent>> {
    sqlx::query_as(
        "/* traced_events */ SELECT seq, event_type, actor_type, actor_id, created_at, trace_id, trace_flags \
         FROM return_events FORCE INDEX (return_seq) WHERE return_id = ? ORDER BY seq",
    )
    .bind(id)
    .fetch_all(conn)
    .await
}

/// An event that has not been deleted from the outbox, or that is parked.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Unsent {
    pub(crate) seq: i32,
    pub(crate) parked_at: Option<OffsetDateTime>,
    pub(crate) first_error: Option<String>,
}

pub(crate) async fn unsent_events(
    conn: &mut MySqlConnection,
    order: OrderId,
    id: ReturnId,
) -> sqlx::Result<Vec<Unsent>> {
    sqlx::query_as(
        "/* unsent_events */ SELECT seq, NULL AS parked_at, NULL AS first_error \
         FROM outbox FORCE INDEX (PRIMARY) WHERE shard = ? AND aggregate_id = ? \
         UNION ALL SELECT seq, parked_at, first_error \
         FROM outbox_parked FORCE INDEX (msg_key) WHERE msg_key = ? AND aggregate_id = ? ORDER BY seq",
    )
    .bind(Shard::of(order))
    .bind(id)
    .bind(order.to_string())
    .bind(id)
    .fetch_all(conn)
    .await
}

/// What a person did with `returnsctl`.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct OperatorAction {
    pub(crate) verb: String,
    pub(crate) actor_type: String,
    pub(crate) actor_id: String,
    pub(crate) created_at: OffsetDateTime,
}

pub(crate) async fn actions_of(
    conn: &mut MySqlConnection,
    id: ReturnId,
) -> sqlx::Result<Vec<OperatorAction>> {
    sqlx::query_as(
        "/* actions_of */ SELECT verb, actor_type, actor_id, created_at \
         FROM operator_actions FORCE INDEX (return_id) WHERE return_id = ? ORDER BY id",
    )
    .bind(id)
    .fetch_all(conn)
    .await
}
