//! Paid attempts that are looked up again. They have an index and statements of their own, so that they cost the scans for
//! unpaid attempts nothing.

use serde_json::{Value, json};
use shared::domain::ids::OrderId;
use shared::domain::refund::{ATTEMPT, AttemptId, datetime};
use sqlx::{AssertSqlSafe, FromRow, Row};
use time::OffsetDateTime;

use super::attempts::{Due, TakeOver, taken};
use super::{Conn, hex};
use crate::error::Error;

/// Paid attempts of this gateway whose look-up is due, the longest due first, and the database's clock.
pub async fn due_rechecks(
    conn: &mut Conn,
    gateway: &str,
    limit: u32,
) -> Result<(Option<OffsetDateTime>, Vec<Due>), Error> {
    let sql = format!(
        "/* due_rechecks */ SELECT UTC_TIMESTAMP(6) AS now, r.order_id, {ATTEMPT} FROM refunds AS f FORCE INDEX (recheck) \
         STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = f.return_id \
         WHERE f.gateway = ? AND f.recheck_at <= UTC_TIMESTAMP(6) AND f.state = 'succeeded' \
         AND (f.call_deadline IS NULL OR f.call_deadline <= UTC_TIMESTAMP(6)) ORDER BY f.recheck_at LIMIT ?"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(gateway)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    let now = rows.first().map(|row| row.try_get("now")).transpose()?;
    let mut due: Vec<Due> = rows
        .iter()
        .map(Due::from_row)
        .collect::<sqlx::Result<_>>()?;
    due.sort_unstable_by_key(|due| due.attempt.id);
    Ok((now, due))
}

/// Takes over those of `due`, sorted by id, that are still as the scan saw them; returns which. As for unpaid attempts, one
/// conditional UPDATE decides between rivals.
pub async fn take_rechecks(
    conn: &mut Conn,
    due: &[Due],
    by: &TakeOver,
) -> Result<Vec<AttemptId>, Error> {
    debug_assert!(due.is_sorted_by_key(|due| due.attempt.id));
    let seen: Vec<Value> = due
        .iter()
        .map(|Due { attempt, .. }| {
            json!({
                "return_id": attempt.id.return_id,
                "attempt": attempt.id.number,
                "recheck_at": attempt.recheck_at.map(datetime),
            })
        })
        .collect();
    sqlx::query(
        "/* take_rechecks */ UPDATE JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', \
         attempt INT PATH '$.attempt', recheck_at VARCHAR(26) PATH '$.recheck_at')) AS seen \
         STRAIGHT_JOIN refunds AS f FORCE INDEX (PRIMARY) ON f.return_id = seen.return_id AND f.attempt = seen.attempt \
         SET f.call_deadline = ?, f.recheck_at = ?, f.updated_at = ?, f.owner = UNHEX(?) \
         WHERE f.state = 'succeeded' AND f.recheck_at = CAST(seen.recheck_at AS DATETIME(6)) \
         AND (f.call_deadline IS NULL OR f.call_deadline <= UTC_TIMESTAMP(6))",
    )
    .bind(Value::from(seen).to_string())
    .bind(datetime(by.call_deadline))
    .bind(datetime(by.call_deadline))
    .bind(datetime(by.now))
    .bind(hex(by.owner))
    .execute(&mut *conn)
    .await?;
    taken(conn, due, by).await
}

/// Which of these orders, locked by the caller, have an open return.
pub async fn orders_with_open_return(
    conn: &mut Conn,
    orders: &[OrderId],
) -> Result<Vec<OrderId>, Error> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let open = sqlx::query_scalar(
        "/* orders_with_open_return */ SELECT r.open_order_id \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS wanted \
         STRAIGHT_JOIN returns AS r FORCE INDEX (one_open_return_per_order) ON r.open_order_id = wanted.id",
    )
    .bind(json!(orders).to_string())
    .fetch_all(conn)
    .await?;
    Ok(open)
}
