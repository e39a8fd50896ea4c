//! Rows of `refunds` on their way from claimed to settled.

use serde_json::{Value, json};
use shared::domain::eligibility::{ORDER, OrderFacts, REFUNDED_HERE};
use shared::domain::ids::OrderId;
use shared::domain::refund::{ATTEMPT, Attempt, AttemptId, AttemptState, datetime};
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, FromRow, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, OURS, hex};
use crate::error::Error;
use crate::gateway::GatewayName;

pub(super) fn ids_json(ids: &[AttemptId]) -> String {
    let ids: Vec<Value> = ids
        .iter()
        .map(|id| json!({"return_id": id.return_id, "attempt": id.number}))
        .collect();
    Value::from(ids).to_string()
}

/// Moves attempts of `owner`, sorted by id, from claimed to sent; returns which of them it still owned.
pub async fn mark_sent(
    conn: &mut Conn,
    owner: Uuid,
    ids: &[AttemptId],
) -> Result<Vec<AttemptId>, Error> {
    debug_assert!(ids.is_sorted());
    sqlx::query(
        "/* mark_sent */ UPDATE JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', \
         attempt INT PATH '$.attempt')) AS wanted \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = wanted.return_id AND f.attempt = wanted.attempt \
         SET f.first_sent_at = COALESCE(f.first_sent_at, UTC_TIMESTAMP(6)), f.updated_at = UTC_TIMESTAMP(6), f.checks = 0, \
         f.state = 'sent' WHERE f.owner = UNHEX(?) AND f.state = 'claimed'",
    )
    .bind(ids_json(ids))
    .bind(hex(owner))
    .execute(&mut *conn)
    .await?;
    let marked = sqlx::query_as(
        "/* mark_sent */ SELECT f.return_id, f.attempt \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', attempt INT PATH '$.attempt')) AS wanted \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = wanted.return_id AND f.attempt = wanted.attempt \
         WHERE f.owner = UNHEX(?) AND f.state = 'sent'",
    )
    .bind(ids_json(ids))
    .bind(hex(owner))
    .fetch_all(conn)
    .await?;
    Ok(marked)
}

/// An attempt whose owner has not called for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GiveBack {
    pub id: AttemptId,
    /// No process has called for it: any gateway may carry it on.
    pub unsent: bool,
}

/// Frees attempts of `owner` that it has not called for; they are due at once.
pub async fn release(conn: &mut Conn, owner: Uuid, attempts: &[GiveBack]) -> Result<u64, Error> {
    debug_assert!(attempts.is_sorted());
    let rows: Vec<Value> = attempts
        .iter()
        .map(|GiveBack { id, unsent }| {
            json!({"return_id": id.return_id, "attempt": id.number, "unsent": i32::from(*unsent)})
        })
        .collect();
    let freed = sqlx::query(
        "/* release */ UPDATE JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', \
         attempt INT PATH '$.attempt', unsent TINYINT PATH '$.unsent')) AS wanted \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = wanted.return_id AND f.attempt = wanted.attempt \
         SET f.next_check_at = UTC_TIMESTAMP(6), f.updated_at = UTC_TIMESTAMP(6), f.call_deadline = NULL, \
         f.first_sent_at = IF(wanted.unsent AND f.state = 'claimed', NULL, f.first_sent_at), \
         f.owner = NULL WHERE f.owner = UNHEX(?) AND f.state IN ('claimed', 'sent', 'pending', 'unknown', 'succeeded')",
    )
    .bind(Value::from(rows).to_string())
    .bind(hex(owner))
    .execute(conn)
    .await?
    .rows_affected();
    Ok(freed)
}

/// An attempt that is due, as a scan saw it.
#[derive(Debug, Clone)]
pub struct Due {
    pub attempt: Attempt,
    pub order_id: OrderId,
}

impl FromRow<'_, MySqlRow> for Due {
    fn from_row(row: &MySqlRow) -> sqlx::Result<Self> {
        Ok(Self {
            attempt: Attempt::from_row(row)?,
            order_id: row.try_get("order_id")?,
        })
    }
}

impl Due {
    /// When it fell due: the key of the index that the scan walks.
    fn due_at(&self) -> OffsetDateTime {
        let Attempt {
            recheck_at,
            next_check_at,
            ..
        } = self.attempt;
        match self.attempt.state {
            AttemptState::Succeeded => recheck_at.unwrap_or(next_check_at),
            _ => next_check_at,
        }
    }
}

/// The rows of a scan, sorted by id, and the database's clock, which each row has.
pub(super) fn due_of(rows: &[MySqlRow]) -> Result<(Option<OffsetDateTime>, Vec<Due>), Error> {
    let now = rows.first().map(|row| row.try_get("now")).transpose()?;
    let due: sqlx::Result<Vec<Due>> = rows.iter().map(Due::from_row).collect();
    let mut due = due?;
    due.sort_unstable_by_key(|due| due.attempt.id);
    Ok((now, due))
}

/// Which process takes attempts over, until when and at which gateway.
#[derive(Debug, Clone)]
pub struct TakeOver {
    pub owner: Uuid,
    pub gateway: GatewayName,
    pub native_idempotency: bool,
    pub now: OffsetDateTime,
    pub call_deadline: OffsetDateTime,
}

/// Takes over those of `due`, sorted by id, that are still as the scan saw them; returns which.
///
/// One conditional UPDATE decides between rivals: its WHERE requires the old owner, state and due time, that the old
/// owner's call deadline has passed, and that the attempt does not belong to another gateway. A paid attempt is due by
/// `recheck_at`, every other by `next_check_at`.
pub async fn take_over(
    conn: &mut Conn,
    due: &[Due],
    by: &TakeOver,
) -> Result<Vec<AttemptId>, Error> {
    debug_assert!(due.is_sorted_by_key(|due| due.attempt.id));
    let seen: Vec<Value> = due
        .iter()
        .map(|due| {
            let attempt = &due.attempt;
            json!({
                "return_id": attempt.id.return_id,
                "attempt": attempt.id.number,
                "state": attempt.state.as_str(),
                "owner": attempt.owner.map(hex),
                "due_at": datetime(due.due_at()),
                "with_key": i32::from(goes_with_key(attempt, by)),
            })
        })
        .collect();
    let sql = format!(
        "/* take_over */ UPDATE JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', \
         attempt INT PATH '$.attempt', state VARCHAR(16) PATH '$.state', owner CHAR(32) PATH '$.owner', \
         due_at VARCHAR(26) PATH '$.due_at', with_key TINYINT PATH '$.with_key')) AS seen \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = seen.return_id AND f.attempt = seen.attempt \
         SET f.first_sent_at = IF(? AND f.state = 'claimed', COALESCE(f.first_sent_at, ?), f.first_sent_at), \
         f.sent_with_key = seen.with_key, f.call_deadline = ?, \
         f.next_check_at = IF(f.state = 'succeeded', f.next_check_at, ?), \
         f.recheck_at = IF(f.state = 'succeeded', ?, f.recheck_at), \
         f.gateway = ?, f.updated_at = ?, f.owner = UNHEX(?) \
         WHERE f.owner <=> UNHEX(seen.owner) AND f.state = CONVERT(seen.state USING ascii) \
         AND IF(f.state = 'succeeded', f.recheck_at, f.next_check_at) = CAST(seen.due_at AS DATETIME(6)) \
         AND CAST(seen.due_at AS DATETIME(6)) <= UTC_TIMESTAMP(6) \
         AND (f.call_deadline IS NULL OR f.call_deadline <= UTC_TIMESTAMP(6)) AND {OURS}"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(Value::from(seen).to_string())
        .bind(by.native_idempotency)
        .bind(datetime(by.now))
        .bind(datetime(by.call_deadline))
        .bind(datetime(by.call_deadline))
        .bind(datetime(by.call_deadline))
        .bind(by.gateway.as_str())
        .bind(datetime(by.now))
        .bind(hex(by.owner))
        .bind(by.gateway.as_str())
        .execute(&mut *conn)
        .await?;
    taken(conn, due, by).await
}

/// An attempt that was sent without its key must not be sent again with it: the gateway could not see the repeat.
fn goes_with_key(due: &Attempt, by: &TakeOver) -> bool {
    match (due.state, due.first_sent_at) {
        (AttemptState::Claimed, None) => by.native_idempotency,
        _ => due.sent_with_key,
    }
}

/// Which of `due` have us as owner, with the deadline just written.
async fn taken(conn: &mut Conn, due: &[Due], by: &TakeOver) -> Result<Vec<AttemptId>, Error> {
    let ids: Vec<AttemptId> = due.iter().map(|due| due.attempt.id).collect();
    let taken = sqlx::query_as(
        "/* take_over */ SELECT f.return_id, f.attempt \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', attempt INT PATH '$.attempt')) AS wanted \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = wanted.return_id AND f.attempt = wanted.attempt \
         WHERE f.owner = UNHEX(?) AND f.call_deadline = CAST(? AS DATETIME(6))",
    )
    .bind(ids_json(&ids))
    .bind(hex(by.owner))
    .bind(datetime(by.call_deadline))
    .fetch_all(conn)
    .await?;
    Ok(taken)
}

/// The attempts before `later`, ascending; `None` if this server does not show `later` as the attempt of `owner`. Then it is
/// an old primary: it may lack an earlier attempt, or its outcome.
pub async fn read_earlier(
    conn: &mut Conn,
    later: AttemptId,
    owner: Uuid,
) -> Result<Option<Vec<Attempt>>, Error> {
    let sql = format!(
        "/* read_earlier */ SELECT {ATTEMPT} FROM refunds AS f WHERE f.return_id = ? AND f.attempt <= ? \
         ORDER BY f.attempt"
    );
    let mut attempts: Vec<Attempt> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(later.return_id)
        .bind(later.number)
        .fetch_all(conn)
        .await?;
    let ours = attempts.pop_if(|last| last.id == later && last.owner == Some(owner));
    Ok(ours.map(|_| attempts))
}

/// The order of an attempt, without a lock; `None` if this server does not show the attempt as that of `owner`. Then it is an
/// old primary, and its row of the order may be old too.
pub async fn read_order(
    conn: &mut Conn,
    id: AttemptId,
    owner: Uuid,
) -> Result<Option<OrderFacts>, Error> {
    let sql = format!(
        "/* read_order */ SELECT {ORDER}, {REFUNDED_HERE} FROM refunds AS f FORCE INDEX (PRIMARY) \
         STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = f.return_id \
         STRAIGHT_JOIN orders AS o FORCE INDEX (PRIMARY) ON o.id = r.order_id \
         WHERE f.return_id = ? AND f.attempt = ? AND f.owner = UNHEX(?)"
    );
    let order = sqlx::query_as(AssertSqlSafe(sql))
        .bind(id.return_id)
        .bind(id.number)
        .bind(hex(owner))
        .fetch_optional(conn)
        .await?;
    Ok(order)
}
