//! Rows of `refunds` on their way from claimed to settled.

use std::collections::HashMap;

use serde_json::{Value, json};
use shared::domain::ids::{OrderId, ReturnId};
use shared::domain::money::Money;
use sqlx::Row;
use sqlx::mysql::MySqlRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, datetime, expect_rows, hex, money};
use crate::attempt::{AttemptId, AttemptState, IdempotencyKey, Recorded};
use crate::error::Error;

fn state(row: &MySqlRow) -> Result<AttemptState, Error> {
    let name: String = row.try_get("state")?;
    AttemptState::parse(&name).ok_or(Error::Unreadable("refunds.state"))
}

fn id(row: &MySqlRow) -> Result<AttemptId, Error> {
    Ok(AttemptId {
        return_id: row.try_get("return_id")?,
        number: row.try_get("attempt")?,
    })
}

fn ids_json(ids: &[AttemptId]) -> String {
    let ids: Vec<Value> = ids
        .iter()
        .map(|id| json!({"return_id": id.return_id, "attempt": id.number}))
        .collect();
    Value::from(ids).to_string()
}

/// Locks every attempt of these returns, which must be sorted and locked, and answers them by return, ascending. Waits
/// for nobody: should another transaction hold one all the same, that is an error.
pub async fn lock_attempts(
    conn: &mut Conn,
    returns: &[ReturnId],
) -> Result<HashMap<ReturnId, Vec<Recorded>>, Error> {
    debug_assert!(returns.is_sorted());
    let rows = sqlx::query(
        "/* lock_attempts */ SELECT f.return_id, f.attempt, f.amount, f.currency, f.state, f.owner, f.call_deadline, \
         f.first_sent_at, f.next_check_at, f.checks, f.gateway, f.gateway_ref, f.last_error \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS wanted \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = wanted.id FOR UPDATE OF f NOWAIT",
    )
    .bind(json!(returns).to_string())
    .fetch_all(conn)
    .await?;
    let mut by_return: HashMap<ReturnId, Vec<Recorded>> = HashMap::new();
    for row in &rows {
        let recorded = read_recorded(row)?;
        by_return
            .entry(recorded.id.return_id)
            .or_default()
            .push(recorded);
    }
    for attempts in by_return.values_mut() {
        attempts.sort_unstable_by_key(|attempt| attempt.id);
    }
    Ok(by_return)
}

fn read_recorded(row: &MySqlRow) -> Result<Recorded, Error> {
    Ok(Recorded {
        id: id(row)?,
        state: state(row)?,
        owner: row.try_get("owner")?,
        call_deadline: row.try_get("call_deadline")?,
        first_sent_at: row.try_get("first_sent_at")?,
        next_check_at: row.try_get("next_check_at")?,
        checks: row.try_get("checks")?,
        amount: money(row, "amount")?,
        gateway: row.try_get("gateway")?,
        gateway_ref: row.try_get("gateway_ref")?,
        last_error: row.try_get("last_error")?,
    })
}

/// Writes attempts that were changed under their lock, sorted by id.
pub async fn update_attempts(
    conn: &mut Conn,
    changed: &[&Recorded],
    now: OffsetDateTime,
) -> Result<(), Error> {
    debug_assert!(changed.is_sorted_by_key(|attempt| attempt.id));
    if changed.is_empty() {
        return Ok(());
    }
    let rows: Vec<Value> = changed
        .iter()
        .map(|attempt| attempt_json(attempt))
        .collect();
    let wrote = sqlx::query(
        "/* update_attempts */ UPDATE JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', \
         attempt INT PATH '$.attempt', state VARCHAR(16) PATH '$.state', owner CHAR(32) PATH '$.owner', \
         call_deadline VARCHAR(26) PATH '$.call_deadline', first_sent_at VARCHAR(26) PATH '$.first_sent_at', \
         next_check_at VARCHAR(26) PATH '$.next_check_at', checks INT PATH '$.checks', \
         gateway VARCHAR(32) PATH '$.gateway', gateway_ref VARCHAR(128) PATH '$.gateway_ref', \
         last_error VARCHAR(64) PATH '$.last_error')) AS new \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = new.return_id AND f.attempt = new.attempt \
         SET f.state = new.state, f.owner = UNHEX(new.owner), f.call_deadline = new.call_deadline, \
         f.first_sent_at = new.first_sent_at, f.next_check_at = new.next_check_at, f.checks = new.checks, \
         f.gateway = new.gateway, f.gateway_ref = new.gateway_ref, f.last_error = new.last_error, f.updated_at = ?",
    )
    .bind(Value::from(rows).to_string())
    .bind(datetime(now))
    .execute(conn)
    .await?
    .rows_affected();
    expect_rows("refunds", changed.len(), wrote)
}

fn attempt_json(attempt: &Recorded) -> Value {
    json!({
        "return_id": attempt.id.return_id,
        "attempt": attempt.id.number,
        "state": attempt.state.as_str(),
        "owner": attempt.owner.map(hex),
        "call_deadline": attempt.call_deadline.map(datetime),
        "first_sent_at": attempt.first_sent_at.map(datetime),
        "next_check_at": datetime(attempt.next_check_at),
        "checks": attempt.checks,
        "gateway": attempt.gateway,
        "gateway_ref": attempt.gateway_ref,
        "last_error": attempt.last_error,
    })
}

/// Adds what was paid to the locked orders, each once and sorted.
pub async fn add_refunds(conn: &mut Conn, paid: &[(OrderId, Money)]) -> Result<(), Error> {
    debug_assert!(paid.is_sorted_by_key(|(order, _)| *order));
    if paid.is_empty() {
        return Ok(());
    }
    let rows: Vec<Value> = paid
        .iter()
        .map(|(order, money)| json!({"id": order, "amount": money.amount.to_string()}))
        .collect();
    let wrote = sqlx::query(
        "/* add_refunds */ UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$.id', \
         amount VARCHAR(32) PATH '$.amount')) AS paid \
         STRAIGHT_JOIN orders AS o FORCE INDEX (PRIMARY) ON o.id = paid.id \
         SET o.refunded_amount = o.refunded_amount + CAST(paid.amount AS DECIMAL(19,4))",
    )
    .bind(Value::from(rows).to_string())
    .execute(conn)
    .await?
    .rows_affected();
    expect_rows("orders", paid.len(), wrote)
}

/// Moves attempts of `owner` from claimed to sent; answers which of them it still owned. Sorted by id.
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
    let rows = sqlx::query(
        "/* mark_sent */ SELECT f.return_id, f.attempt \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', attempt INT PATH '$.attempt')) AS wanted \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = wanted.return_id AND f.attempt = wanted.attempt \
         WHERE f.owner = UNHEX(?) AND f.state = 'sent'",
    )
    .bind(ids_json(ids))
    .bind(hex(owner))
    .fetch_all(conn)
    .await?;
    rows.iter().map(id).collect()
}

/// Frees attempts of `owner` that it has not called for; others find them due at once.
pub async fn release(conn: &mut Conn, owner: Uuid, ids: &[AttemptId]) -> Result<u64, Error> {
    debug_assert!(ids.is_sorted());
    let freed = sqlx::query(
        "/* release */ UPDATE JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', \
         attempt INT PATH '$.attempt')) AS wanted \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = wanted.return_id AND f.attempt = wanted.attempt \
         SET f.next_check_at = UTC_TIMESTAMP(6), f.updated_at = UTC_TIMESTAMP(6), f.call_deadline = NULL, \
         f.owner = NULL WHERE f.owner = UNHEX(?) AND f.state IN ('claimed', 'sent', 'pending', 'unknown')",
    )
    .bind(ids_json(ids))
    .bind(hex(owner))
    .execute(conn)
    .await?
    .rows_affected();
    Ok(freed)
}

/// An attempt whose time has come, as a scan saw it.
#[derive(Debug, Clone)]
pub struct Due {
    pub id: AttemptId,
    pub order_id: OrderId,
    pub key: IdempotencyKey,
    pub amount: Money,
    pub state: AttemptState,
    pub owner: Option<Uuid>,
    pub first_sent_at: Option<OffsetDateTime>,
    /// Whether what may have been sent had the key with it.
    pub sent_with_key: bool,
    pub next_check_at: OffsetDateTime,
    pub checks: i32,
    pub gateway_ref: Option<String>,
}

pub(super) fn read_due(row: &MySqlRow) -> Result<Due, Error> {
    Ok(Due {
        id: id(row)?,
        order_id: row.try_get("order_id")?,
        key: IdempotencyKey(row.try_get("idempotency_key")?),
        amount: money(row, "amount")?,
        state: state(row)?,
        owner: row.try_get("owner")?,
        first_sent_at: row.try_get("first_sent_at")?,
        sent_with_key: row.try_get("sent_with_key")?,
        next_check_at: row.try_get("next_check_at")?,
        checks: row.try_get("checks")?,
        gateway_ref: row.try_get("gateway_ref")?,
    })
}

/// On whose behalf, until when and at which gateway attempts are taken over.
#[derive(Debug, Clone, Copy)]
pub struct TakeOver<'a> {
    pub owner: Uuid,
    pub gateway: &'a str,
    pub native_idempotency: bool,
    pub now: OffsetDateTime,
    pub call_deadline: OffsetDateTime,
}

/// Takes over those of `due`, sorted by id, that still are as the scan saw them; answers which.
///
/// One conditional UPDATE decides between rivals: its WHERE holds the old owner, state and due time, and that the
/// old owner's deadline to call has passed.
pub async fn take_over(
    conn: &mut Conn,
    due: &[Due],
    by: &TakeOver<'_>,
) -> Result<Vec<AttemptId>, Error> {
    debug_assert!(due.is_sorted_by_key(|due| due.id));
    let seen: Vec<Value> = due
        .iter()
        .map(|due| {
            json!({
                "return_id": due.id.return_id,
                "attempt": due.id.number,
                "state": due.state.as_str(),
                "owner": due.owner.map(hex),
                "next_check_at": datetime(due.next_check_at),
                "with_key": i32::from(goes_with_key(due, by)),
            })
        })
        .collect();
    sqlx::query(
        "/* take_over */ UPDATE JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', \
         attempt INT PATH '$.attempt', state VARCHAR(16) PATH '$.state', owner CHAR(32) PATH '$.owner', \
         next_check_at VARCHAR(26) PATH '$.next_check_at', with_key TINYINT PATH '$.with_key')) AS seen \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = seen.return_id AND f.attempt = seen.attempt \
         SET f.first_sent_at = IF(? AND f.state = 'claimed', COALESCE(f.first_sent_at, ?), f.first_sent_at), \
         f.sent_with_key = seen.with_key, f.call_deadline = ?, \
         f.next_check_at = ?, f.gateway = ?, f.updated_at = ?, f.owner = UNHEX(?) \
         WHERE f.owner <=> UNHEX(seen.owner) AND f.state = CONVERT(seen.state USING ascii) \
         AND f.next_check_at = CAST(seen.next_check_at AS DATETIME(6)) AND f.next_check_at <= UTC_TIMESTAMP(6) \
         AND (f.call_deadline IS NULL OR f.call_deadline <= UTC_TIMESTAMP(6))",
    )
    .bind(Value::from(seen).to_string())
    .bind(by.native_idempotency)
    .bind(datetime(by.now))
    .bind(datetime(by.call_deadline))
    .bind(datetime(by.call_deadline))
    .bind(by.gateway)
    .bind(datetime(by.now))
    .bind(hex(by.owner))
    .execute(&mut *conn)
    .await?;
    taken(conn, due, by).await
}

/// What was sent without its key must not be sent again with it: the gateway would not know that it is a repeat.
fn goes_with_key(due: &Due, by: &TakeOver<'_>) -> bool {
    match (due.state, due.first_sent_at) {
        (AttemptState::Claimed, None) => by.native_idempotency,
        _ => due.sent_with_key,
    }
}

/// Which of `due` carry our name and the deadline just written.
async fn taken(conn: &mut Conn, due: &[Due], by: &TakeOver<'_>) -> Result<Vec<AttemptId>, Error> {
    let ids: Vec<AttemptId> = due.iter().map(|due| due.id).collect();
    let rows = sqlx::query(
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
    rows.iter().map(id).collect()
}

/// An earlier attempt of a return, to be looked up before a later one is sent.
#[derive(Debug, Clone)]
pub struct Earlier {
    pub id: AttemptId,
    pub key: IdempotencyKey,
    pub amount: Money,
    pub gateway: Option<String>,
}

/// The attempts before `later`, ascending.
pub async fn read_earlier(conn: &mut Conn, later: AttemptId) -> Result<Vec<Earlier>, Error> {
    let rows = sqlx::query(
        "/* read_earlier */ SELECT return_id, attempt, idempotency_key, amount, currency, gateway FROM refunds \
         WHERE return_id = ? AND attempt < ? ORDER BY attempt",
    )
    .bind(later.return_id)
    .bind(later.number)
    .fetch_all(conn)
    .await?;
    let read = |row: &MySqlRow| {
        Ok(Earlier {
            id: id(row)?,
            key: IdempotencyKey(row.try_get("idempotency_key")?),
            amount: money(row, "amount")?,
            gateway: row.try_get("gateway")?,
        })
    };
    rows.iter().map(read).collect()
}
