//! The rows of `refunds`: how they are read, locked and written.

use std::collections::HashMap;

use serde_json::{Value, json};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, FromRow, Row};
use time::OffsetDateTime;
use time::macros::format_description;

use super::{Attempt, AttemptId};
use crate::domain::ids::ReturnId;
use crate::domain::money::Money;
use crate::domain::row::decode_enum;

/// The columns of an [`Attempt`], of the table `f`.
pub const ATTEMPT: &str = "f.return_id, f.attempt, f.idempotency_key, f.amount, f.currency, f.state, f.owner, \
     f.call_deadline, f.first_sent_at, f.sent_with_key, f.next_check_at, f.planned_check_at, f.checks, f.tries, f.refusals, \
     f.provider_answer, f.gateway, f.gateway_ref, f.last_error, f.succeeded_at, f.recheck_at, \
     f.created_at, f.updated_at";

impl FromRow<'_, MySqlRow> for AttemptId {
    fn from_row(row: &MySqlRow) -> sqlx::Result<Self> {
        Ok(Self {
            return_id: row.try_get("return_id")?,
            number: row.try_get("attempt")?,
        })
    }
}

impl FromRow<'_, MySqlRow> for Attempt {
    fn from_row(row: &MySqlRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: AttemptId::from_row(row)?,
            key: row.try_get("idempotency_key")?,
            amount: Money::from_row(row, "amount")?,
            state: decode_enum(row, "state")?,
            owner: row.try_get("owner")?,
            call_deadline: row.try_get("call_deadline")?,
            first_sent_at: row.try_get("first_sent_at")?,
            sent_with_key: row.try_get("sent_with_key")?,
            next_check_at: row.try_get("next_check_at")?,
            planned_check_at: row.try_get("planned_check_at")?,
            checks: row.try_get("checks")?,
            tries: row.try_get("tries")?,
            refusals: row.try_get("refusals")?,
            provider_answer: row.try_get("provider_answer")?,
            gateway: row.try_get("gateway")?,
            gateway_ref: row.try_get("gateway_ref")?,
            last_error: row.try_get("last_error")?,
            succeeded_at: row.try_get("succeeded_at")?,
            recheck_at: row.try_get("recheck_at")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

/// What to do about a row that another transaction holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfHeld {
    /// Wait up to the session's lock wait timeout.
    Wait,
    /// Fail at once with error 3572.
    Fail,
}

/// Locks every attempt of these returns, which must be sorted and locked, and returns them by return, ascending.
///
/// # Errors
/// A database error (lock wait, deadlock): roll back and run the whole transaction again.
pub async fn lock_attempts(
    conn: &mut MySqlConnection,
    returns: &[ReturnId],
    if_held: IfHeld,
) -> sqlx::Result<HashMap<ReturnId, Vec<Attempt>>> {
    debug_assert!(returns.is_sorted());
    let nowait = match if_held {
        IfHeld::Wait => "",
        IfHeld::Fail => " NOWAIT",
    };
    let sql = format!(
        "/* lock_attempts */ SELECT {ATTEMPT} FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS wanted \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = wanted.id FOR UPDATE OF f{nowait}"
    );
    let rows: Vec<Attempt> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(json!(returns).to_string())
        .fetch_all(conn)
        .await?;
    let mut by_return: HashMap<ReturnId, Vec<Attempt>> = HashMap::new();
    for row in rows {
        by_return.entry(row.id.return_id).or_default().push(row);
    }
    for attempts in by_return.values_mut() {
        attempts.sort_unstable_by_key(|attempt| attempt.id);
    }
    Ok(by_return)
}

/// Writes attempts that were changed under their lock, sorted by id; returns how many rows it wrote.
///
/// # Errors
/// A database error: roll back.
pub async fn update_attempts(
    conn: &mut MySqlConnection,
    changed: &[&Attempt],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    debug_assert!(changed.is_sorted_by_key(|attempt| attempt.id));
    if changed.is_empty() {
        return Ok(0);
    }
    let rows: Vec<Value> = changed
        .iter()
        .map(|attempt| attempt_json(attempt))
        .collect();
    let wrote = sqlx::query(
        "/* update_attempts */ UPDATE JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', \
         attempt INT PATH '$.attempt', state VARCHAR(16) PATH '$.state', owner CHAR(32) PATH '$.owner', \
         call_deadline VARCHAR(26) PATH '$.call_deadline', first_sent_at VARCHAR(26) PATH '$.first_sent_at', \
         next_check_at VARCHAR(26) PATH '$.next_check_at', planned_check_at VARCHAR(26) PATH '$.planned_check_at', \
         checks INT PATH '$.checks', \
         tries INT PATH '$.tries', refusals INT PATH '$.refusals', provider_answer VARCHAR(255) PATH '$.provider_answer', \
         gateway VARCHAR(32) PATH '$.gateway', gateway_ref VARCHAR(128) PATH '$.gateway_ref', \
         last_error VARCHAR(64) PATH '$.last_error', succeeded_at VARCHAR(26) PATH '$.succeeded_at', \
         recheck_at VARCHAR(26) PATH '$.recheck_at')) AS new \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = new.return_id AND f.attempt = new.attempt \
         SET f.state = new.state, f.owner = UNHEX(new.owner), f.call_deadline = new.call_deadline, \
         f.first_sent_at = new.first_sent_at, f.next_check_at = new.next_check_at, \
         f.planned_check_at = new.planned_check_at, f.checks = new.checks, \
         f.tries = new.tries, f.refusals = new.refusals, f.provider_answer = new.provider_answer, \
         f.gateway = new.gateway, f.gateway_ref = new.gateway_ref, f.last_error = new.last_error, \
         f.succeeded_at = new.succeeded_at, f.recheck_at = new.recheck_at, f.updated_at = ?",
    )
    .bind(Value::from(rows).to_string())
    .bind(datetime(now))
    .execute(conn)
    .await?;
    Ok(wrote.rows_affected())
}

fn attempt_json(attempt: &Attempt) -> Value {
    json!({
        "return_id": attempt.id.return_id,
        "attempt": attempt.id.number,
        "state": attempt.state.as_str(),
        "owner": attempt.owner.map(|owner| owner.simple().to_string()),
        "call_deadline": attempt.call_deadline.map(datetime),
        "first_sent_at": attempt.first_sent_at.map(datetime),
        "next_check_at": datetime(attempt.next_check_at),
        "planned_check_at": attempt.planned_check_at.map(datetime),
        "checks": attempt.checks,
        "tries": attempt.tries,
        "refusals": attempt.refusals,
        "provider_answer": attempt.provider_answer,
        "gateway": attempt.gateway,
        "gateway_ref": attempt.gateway_ref,
        "last_error": attempt.last_error,
        "succeeded_at": attempt.succeeded_at.map(datetime),
        "recheck_at": attempt.recheck_at.map(datetime),
    })
}

/// `DATETIME(6)` as text: what a JSON list can carry.
pub fn datetime(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC)
        .format(format_description!(
            "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]"
        ))
        .expect("every component is present in an OffsetDateTime")
}
