//! The trace contexts of returns whose attempts a scan takes up.

use std::collections::HashMap;

use serde_json::json;
use shared::domain::ids::ReturnId;
use shared::domain::trace_context::TraceContext;
use sqlx::Row;

use super::Conn;
use crate::error::Error;

/// The contexts of a return's last change and of the one before it.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    pub last: Option<TraceContext>,
    pub earlier: Option<TraceContext>,
}

/// By return; a return without events is left out.
pub async fn read_traces(
    conn: &mut Conn,
    returns: &[ReturnId],
) -> Result<HashMap<ReturnId, Traces>, Error> {
    let rows = sqlx::query(
        "/* read_traces */ SELECT e.return_id, e.seq = r.version AS is_last, e.trace_id, e.span_id, e.trace_flags \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS wanted \
         STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = wanted.id \
         STRAIGHT_JOIN return_events AS e FORCE INDEX (return_seq) \
         ON e.return_id = r.id AND e.seq BETWEEN r.version - 1 AND r.version",
    )
    .bind(json!(returns).to_string())
    .fetch_all(conn)
    .await?;
    let mut traces: HashMap<ReturnId, Traces> = HashMap::new();
    for row in &rows {
        let of = traces.entry(row.try_get("return_id")?).or_default();
        let context = TraceContext::from_row(row)?;
        if row.try_get::<bool, _>("is_last")? {
            of.last = context;
        } else {
            of.earlier = context;
        }
    }
    Ok(traces)
}
