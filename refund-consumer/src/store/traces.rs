//! The trace contexts of attempts that a scan takes up.

use std::collections::HashMap;

use shared::domain::refund::AttemptId;
use shared::domain::trace_context::TraceContext;
use sqlx::Row;

use super::Conn;
use super::attempts::ids_json;
use crate::error::Error;

/// The contexts of the return's last change, and of what ended the attempt before.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    pub last: Option<TraceContext>,
    pub earlier: Option<TraceContext>,
}

/// By attempt; one whose return has no events is left out. An attempt begins with `refund.retried`, unless it is the first:
/// the event before that one ended the attempt before.
pub async fn read_traces(
    conn: &mut Conn,
    attempts: &[AttemptId],
) -> Result<HashMap<AttemptId, Traces>, Error> {
    let rows = sqlx::query(
        "/* read_traces */ SELECT wanted.return_id, wanted.attempt, e.seq = r.version AS is_last, e.trace_id, e.span_id, \
         e.trace_flags FROM JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', \
         attempt INT PATH '$.attempt')) AS wanted \
         STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = wanted.return_id \
         LEFT JOIN return_events AS begun FORCE INDEX (return_seq) ON begun.return_id = r.id AND wanted.attempt > 1 \
         AND begun.event_type = 'refund.retried' AND JSON_EXTRACT(begun.event_data, '$.attempt') = wanted.attempt \
         STRAIGHT_JOIN return_events AS e FORCE INDEX (return_seq) \
         ON e.return_id = r.id AND e.seq IN (r.version, begun.seq - 1)",
    )
    .bind(ids_json(attempts))
    .fetch_all(conn)
    .await?;
    let mut traces: HashMap<AttemptId, Traces> = HashMap::new();
    for row in &rows {
        let id = AttemptId {
            return_id: row.try_get("return_id")?,
            number: row.try_get("attempt")?,
        };
        let of = traces.entry(id).or_default();
        let context = TraceContext::from_row(row)?;
        if row.try_get::<bool, _>("is_last")? {
            of.last = context;
        } else {
            of.earlier = context;
        }
    }
    Ok(traces)
}
