//! The only writer of a return's change: status, audit row and outbox row, in the caller's transaction.
//!
//! Must stay true: every change raises `returns.version` by one and writes exactly one `return_events` row and one
//! `outbox` row with that seq and the same event id; the outbox is written last, under the return's row lock, so
//! outbox ids of one return follow its seq. The caller opens and commits, and locks orders before returns.

mod attempt;
mod open;

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use time::OffsetDateTime;

use crate::domain::actor::Actor;
use crate::domain::audit::{self, AuditRow, HashedRow};
use crate::domain::event::TopicArgs;
use crate::domain::ids::{CustomerId, EventId, OrderId, ReturnId};
use crate::domain::money::Money;
use crate::domain::outbox::{self, OutboxRow};
use crate::domain::refund::NoFurther;
use crate::domain::row::decode_enum;
use crate::domain::status::{Action, NotAllowed, Status};
use crate::domain::trace_context::TraceContext;

pub use attempt::{NewAttempt, add_attempt};
pub use open::{Filed, NewReturn, Opened, open};

/// Why a change was not written. The transaction must be rolled back.
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

/// On whose behalf a change is made, and in which request and trace.
#[derive(Debug, Clone)]
pub struct Cause {
    pub actor: Actor,
    pub request_id: Option<String>,
    pub trace: TraceContext,
}

/// A return's row, locked by this transaction, with the head of its audit chain.
#[derive(Debug, Clone)]
pub struct LockedReturn {
    pub id: ReturnId,
    pub order_id: OrderId,
    pub customer_id: CustomerId,
    pub status: Status,
    pub version: i32,
    pub review_required: bool,
    pub refund_amount: Money,
    pub created_at: OffsetDateTime,
    /// Trace of the last change, for changes that no message or request brings about.
    pub trace_id: Option<String>,
    head_hash: String,
}

/// Locked rows and the database's clock, read after the locks.
#[derive(Debug)]
pub struct Locked {
    pub now: OffsetDateTime,
    rows: Vec<LockedReturn>,
}

impl Locked {
    /// The rows that exist, ascending by id.
    pub fn rows(&self) -> &[LockedReturn] {
        &self.rows
    }

    pub fn get(&self, id: ReturnId) -> Option<&LockedReturn> {
        let at = self.rows.binary_search_by_key(&id, |row| row.id).ok()?;
        self.rows.get(at)
    }
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

/// Locks returns in ascending order and reads the heads of their audit chains. Ids without a row are left out.
///
/// The join starts at the id list and the primary key is forced: with statistics taken while the table was small,
/// `WHERE id IN (…)` becomes a scan that waits for other sessions' uncommitted rows.
///
/// # Errors
/// A database error (lock wait, deadlock): roll back and run the whole transaction again.
pub async fn lock(conn: &mut MySqlConnection, ids: &[ReturnId]) -> Result<Locked, TransitionError> {
    lock_rows(conn, ids, "").await
}

/// As [`lock`], but waits for nobody: rows that another transaction holds are left out too.
///
/// # Errors
/// As [`lock`].
pub async fn lock_free(
    conn: &mut MySqlConnection,
    ids: &[ReturnId],
) -> Result<Locked, TransitionError> {
    lock_rows(conn, ids, " SKIP LOCKED").await
}

async fn lock_rows(
    conn: &mut MySqlConnection,
    ids: &[ReturnId],
    held: &'static str,
) -> Result<Locked, TransitionError> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let sql = format!(
        "/* transition::lock */ SELECT r.id, r.order_id, r.customer_id, r.status, r.version, r.review_required, \
         r.refund_amount, r.currency, r.created_at \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS wanted \
         STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = wanted.id FOR UPDATE OF r{held}"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(json!(ids).to_string())
        .fetch_all(&mut *conn)
        .await?;
    let mut locked: Vec<LockedReturn> = rows.iter().map(read_locked).collect::<Result<_, _>>()?;
    locked.sort_unstable_by_key(|row| row.id);
    let now = read_heads(conn, &mut locked).await?;
    Ok(Locked { now, rows: locked })
}

fn read_locked(row: &MySqlRow) -> sqlx::Result<LockedReturn> {
    Ok(LockedReturn {
        id: row.try_get("id")?,
        order_id: row.try_get("order_id")?,
        customer_id: row.try_get("customer_id")?,
        status: decode_enum(row, "status")?,
        version: row.try_get("version")?,
        review_required: row.try_get("review_required")?,
        refund_amount: Money::from_row(row, "refund_amount")?,
        created_at: row.try_get("created_at")?,
        trace_id: None,
        head_hash: String::new(),
    })
}

/// Fills in the chain heads and answers the database's clock: a statement of its own, because the clock of the
/// locking statement was read before it waited.
async fn read_heads(
    conn: &mut MySqlConnection,
    locked: &mut [LockedReturn],
) -> Result<OffsetDateTime, TransitionError> {
    let wanted: Vec<Value> = locked
        .iter()
        .map(|row| json!({"id": row.id, "seq": row.version}))
        .collect();
    let heads = sqlx::query(
        "/* transition::read_heads */ SELECT UTC_TIMESTAMP(6) AS now, e.return_id, e.hash, e.trace_id \
         FROM (SELECT 1) AS one LEFT JOIN (JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$.id', seq INT PATH '$.seq')) \
         AS wanted STRAIGHT_JOIN return_events AS e FORCE INDEX (return_seq) \
         ON e.return_id = wanted.id AND e.seq = wanted.seq) ON TRUE",
    )
    .bind(Value::from(wanted).to_string())
    .fetch_all(conn)
    .await?;
    let mut by_id = HashMap::with_capacity(heads.len());
    let mut now = None;
    for head in &heads {
        now = Some(head.try_get::<OffsetDateTime, _>("now")?);
        if let Some(id) = head.try_get::<Option<ReturnId>, _>("return_id")? {
            by_id.insert(id, (head.try_get("hash")?, head.try_get("trace_id")?));
        }
    }
    for row in locked {
        (row.head_hash, row.trace_id) = by_id.remove(&row.id).ok_or(
            TransitionError::Unreadable("return_events: no row of the return's version"),
        )?;
    }
    now.ok_or(TransitionError::Unreadable("UTC_TIMESTAMP"))
}

/// Writes changes in the order given; a return may appear more than once. Answers one entry per change.
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

/// Moves one row in memory and answers what must be written for it.
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
    row.trace_id.clone_from(&audit.row.trace_id);
    Ok((audit, outbox))
}

/// One UPDATE for the group. The old version is in the WHERE, because affected rows count matched rows.
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

/// The end of a return's history, to which the next event is appended.
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

/// `return_events.event_data`. Field order is part of the stored bytes.
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
    /// The audit row and the outbox row of one change: same event id, same seq.
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
        (audit.into(), outbox)
    }
}
