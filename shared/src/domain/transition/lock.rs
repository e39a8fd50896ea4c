//! Locks returns and reads the heads of their audit chains.

use std::collections::HashMap;

use serde_json::{Value, json};
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use time::OffsetDateTime;

use super::TransitionError;
use crate::domain::ids::{CustomerId, OrderId, ReturnId};
use crate::domain::money::Money;
use crate::domain::row::decode_enum;
use crate::domain::status::Status;
use crate::domain::trace_context::TraceContext;

/// A row of `returns`, locked by this transaction, with the head of its audit chain.
#[derive(Debug, Clone)]
pub struct LockedReturn {
    pub id: ReturnId,
    pub order_id: OrderId,
    pub customer_id: CustomerId,
    /// The admin who filed it for the customer.
    pub filed_by: Option<i64>,
    pub status: Status,
    pub version: i32,
    pub review_required: bool,
    pub refund_amount: Money,
    pub created_at: OffsetDateTime,
    /// The context of the last change, for changes that neither a message nor a request causes.
    pub trace: Option<TraceContext>,
    pub(super) head_hash: String,
}

/// Locked rows, and the time of the database's clock after they were locked.
#[derive(Debug)]
pub struct Locked {
    pub now: OffsetDateTime,
    pub(super) rows: Vec<LockedReturn>,
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

/// Locks returns in ascending order of their ids and reads the heads of their audit chains. Ids without a row are left out.
///
/// The join starts at the list of ids, and the primary key is forced. With statistics from a small table, MySQL would
/// execute `WHERE id IN (…)` as a scan, which waits for uncommitted rows of other sessions.
///
/// # Errors
/// A database error, such as a lock wait timeout or a deadlock: roll back and run the whole transaction again.
pub async fn lock(conn: &mut MySqlConnection, ids: &[ReturnId]) -> Result<Locked, TransitionError> {
    lock_rows(conn, ids, "").await
}

/// As [`lock`], but it waits for no lock: rows that another transaction holds are left out too.
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
    skip_locked: &'static str,
) -> Result<Locked, TransitionError> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let sql = format!(
        "/* transition::lock */ SELECT r.id, r.order_id, r.customer_id, r.filed_by, r.status, r.version, r.review_required, \
         r.refund_amount, r.currency, r.created_at \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS wanted \
         STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = wanted.id FOR UPDATE OF r{skip_locked}"
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
        filed_by: row.try_get("filed_by")?,
        status: decode_enum(row, "status")?,
        version: row.try_get("version")?,
        review_required: row.try_get("review_required")?,
        refund_amount: Money::from_row(row, "refund_amount")?,
        created_at: row.try_get("created_at")?,
        trace: None,
        head_hash: String::new(),
    })
}

/// Fills in the chain heads and returns the time of the database's clock. This is a statement of its own, because the
/// locking statement reads the clock before it waits.
async fn read_heads(
    conn: &mut MySqlConnection,
    locked: &mut [LockedReturn],
) -> Result<OffsetDateTime, TransitionError> {
    let wanted: Vec<Value> = locked
        .iter()
        .map(|row| json!({"id": row.id, "seq": row.version}))
        .collect();
    let heads = sqlx::query(
        "/* transition::read_heads */ SELECT UTC_TIMESTAMP(6) AS now, e.return_id, e.hash, e.trace_id, e.span_id, e.trace_flags \
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
            by_id.insert(id, (head.try_get("hash")?, TraceContext::from_row(head)?));
        }
    }
    for row in locked {
        (row.head_hash, row.trace) = by_id.remove(&row.id).ok_or(TransitionError::Unreadable(
            "return_events: no row of the return's version",
        ))?;
    }
    now.ok_or(TransitionError::Unreadable("UTC_TIMESTAMP"))
}
