//! The only code that changes a return. It writes the status, an audit row and an outbox row in the caller's transaction.
//!
//! Must stay true: every change raises `returns.version` by one and writes exactly one `return_events` row and one
//! `outbox` row with that seq and the same event id. The outbox is written last, under the row lock of the return, so the
//! outbox ids of one return follow its seq. The caller begins and commits, and locks orders before returns.

mod attempt;
mod lock;
mod open;

use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::MySqlConnection;
use time::OffsetDateTime;

use crate::domain::actor::Actor;
use crate::domain::audit::{self, AuditRow, HashedRow};
use crate::domain::event::TopicArgs;
use crate::domain::ids::{EventId, OrderId, ReturnId};
use crate::domain::outbox::{self, OutboxRow};
use crate::domain::refund::NoFurther;
use crate::domain::status::{Action, NotAllowed, Status};
use crate::domain::trace_context::TraceContext;

pub use attempt::{NewAttempt, add_attempt};
pub use lock::{Locked, LockedReturn, lock, lock_free};
pub use open::{Filed, NewReturn, Opened, open};

/// Why a change was not written. The caller must roll back.
#[derive(Debug, thiserror::Error)]
pub enum TransitionError {
    #[error("the return does not allow this")]
    NotAllowed(#[from] NotAllowed),
    #[error("no further attempt may be made: {0}")]
    NoAttempt(#[from] NoFurther),
    #[error("return {0} is not among the locked rows")]
    NotLocked(ReturnId),
    #[error("wrote {wrote} rows of {expected}: a row changed under its lock")]
    RowCount { expected: u64, wrote: u64 },
    #[error("a stored value cannot be read: {0}")]
    Unreadable(&'static str),
    #[error("database")]
    Database(#[from] sqlx::Error),
}

/// The cause of a change: its actor, request and trace.
#[derive(Debug, Clone)]
pub struct Cause {
    pub actor: Actor,
    pub request_id: Option<String>,
    pub trace: TraceContext,
}

/// One change to one locked return.
#[derive(Debug, Clone)]
pub struct Change {
    pub return_id: ReturnId,
    pub action: Action,
    pub cause: Cause,
    /// Codes and ids that explain the change; no personal text. Stored in `event_data`.
    pub detail: Map<String, Value>,
}

/// A change that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    pub return_id: ReturnId,
    pub event_id: EventId,
    pub seq: i32,
    pub status: Status,
}

/// Writes changes in the given order; a return may appear more than once. Returns one entry per change.
///
/// # Errors
/// [`TransitionError::NotAllowed`] before anything is written; any other error: roll back.
pub async fn apply(
    conn: &mut MySqlConnection,
    locked: &mut Locked,
    topics: &TopicArgs,
    changes: &[Change],
) -> Result<Vec<Applied>, TransitionError> {
    let mut rows = locked.rows.clone();
    let mut audit = Vec::with_capacity(changes.len());
    let mut outbox = Vec::with_capacity(changes.len());
    let mut applied = Vec::with_capacity(changes.len());
    for change in changes {
        let at = rows
            .binary_search_by_key(&change.return_id, |row| row.id)
            .map_err(|_| TransitionError::NotLocked(change.return_id))?;
        let (audit_row, outbox_row) = step(&mut rows[at], locked.now, change)?;
        applied.push(Applied {
            return_id: change.return_id,
            event_id: outbox_row.event_id,
            seq: outbox_row.seq,
            status: outbox_row.status,
        });
        audit.push(audit_row);
        outbox.push(outbox_row);
    }
    audit.sort_by_key(|HashedRow { row, .. }| (row.return_id, row.seq));
    update_returns(conn, &locked.rows, &rows, locked.now).await?;
    audit::append(conn, &audit).await?;
    outbox::append(conn, topics, &outbox).await?;
    locked.rows = rows;
    Ok(applied)
}

/// Applies the change to the row in memory and returns the rows to be written.
fn step(
    row: &mut LockedReturn,
    now: OffsetDateTime,
    change: &Change,
) -> Result<(HashedRow, OutboxRow), NotAllowed> {
    let to = row.status.after(change.action)?;
    let head = Head {
        return_id: row.id,
        order_id: row.order_id,
        version: row.version,
        hash: std::mem::take(&mut row.head_hash),
    };
    let (audit, outbox) = head.append(
        now,
        &Step {
            event_type: change.action.event_type(),
            from: Some(row.status),
            to,
            cause: &change.cause,
            detail: &change.detail,
        },
    );
    row.status = to;
    row.version += 1;
    row.head_hash.clone_from(&audit.hash);
    row.trace = Some(audit.trace.clone());
    Ok((audit, outbox))
}

/// One UPDATE for all rows. The WHERE clause has the old version, because affected rows count matched rows.
async fn update_returns(
    conn: &mut MySqlConnection,
    before: &[LockedReturn],
    after: &[LockedReturn],
    now: OffsetDateTime,
) -> Result<(), TransitionError> {
    let moved: Vec<Value> = before
        .iter()
        .zip(after)
        .filter(|(old, new)| old.version != new.version)
        .map(|(old, new)| {
            json!({"id": old.id, "old": old.version, "new": new.version, "status": new.status})
        })
        .collect();
    let expected = u64::try_from(moved.len()).unwrap_or(u64::MAX);
    if expected == 0 {
        return Ok(());
    }
    let wrote = sqlx::query(
        "/* transition::update_returns */ UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$.id', \
         old INT PATH '$.old', new INT PATH '$.new', status VARCHAR(20) PATH '$.status')) AS moved \
         STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = moved.id AND r.version = moved.old \
         SET r.status = moved.status, r.version = moved.new, r.updated_at = ?",
    )
    .bind(Value::from(moved).to_string())
    .bind(now)
    .execute(conn)
    .await?
    .rows_affected();
    if wrote == expected {
        Ok(())
    } else {
        Err(TransitionError::RowCount { expected, wrote })
    }
}

/// The end of the history of a return, to which the next event is appended.
struct Head {
    return_id: ReturnId,
    order_id: OrderId,
    version: i32,
    hash: String,
}

struct Step<'a> {
    event_type: &'static str,
    from: Option<Status>,
    to: Status,
    cause: &'a Cause,
    detail: &'a Map<String, Value>,
}

/// `return_events.event_data`. The order of the fields is part of the stored bytes.
#[derive(Serialize)]
struct EventData<'a> {
    event_id: EventId,
    order_id: String,
    from: Option<Status>,
    to: Status,
    #[serde(flatten)]
    detail: &'a Map<String, Value>,
}

impl Head {
    /// The audit row and the outbox row of one change, with the same event id and the same seq.
    fn append(self, now: OffsetDateTime, step: &Step<'_>) -> (HashedRow, OutboxRow) {
        let event_id = EventId::generate();
        let seq = self.version + 1;
        let event_data = serde_json::to_string(&EventData {
            event_id,
            order_id: self.order_id.to_string(),
            from: step.from,
            to: step.to,
            detail: step.detail,
        })
        .expect("string keys and plain values always serialize");
        let audit = AuditRow {
            return_id: self.return_id,
            seq,
            event_id,
            event_type: step.event_type.to_owned(),
            event_data,
            actor: step.cause.actor.clone(),
            request_id: step.cause.request_id.clone(),
            trace_id: Some(step.cause.trace.trace_id().to_owned()),
            created_at: now,
            prev_hash: self.hash,
        };
        let outbox = OutboxRow {
            order_id: self.order_id,
            return_id: self.return_id,
            seq,
            event_id,
            event_type: step.event_type,
            status: step.to,
            trace: step.cause.trace.clone(),
            created_at: now,
        };
        (HashedRow::new(audit, step.cause.trace.clone()), outbox)
    }
}
