//! The rows that a claim reads, locks and inserts.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use shared::domain::eligibility::{ORDER, OrderFacts, REFUNDED_HERE};
use shared::domain::ids::{EventId, OrderId, ReturnId};
use shared::domain::refund::datetime;
use sqlx::{AssertSqlSafe, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, expect_rows, hex};
use crate::attempt::OwnedAttempt;
use crate::dead_letter::DeadLetter;
use crate::error::Error;

/// The parts of a return that never change: its order and its first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filing {
    pub return_id: ReturnId,
    pub order_id: OrderId,
    pub first_event: EventId,
}

/// Reads filings without a lock: these columns never change.
pub async fn read_filings(
    conn: &mut Conn,
    ids: &[ReturnId],
) -> Result<HashMap<ReturnId, Filing>, Error> {
    let rows = sqlx::query(
        "/* read_filings */ SELECT r.id, r.order_id, e.event_id \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS wanted \
         STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = wanted.id \
         STRAIGHT_JOIN return_events AS e FORCE INDEX (return_seq) ON e.return_id = r.id AND e.seq = 1",
    )
    .bind(json!(ids).to_string())
    .fetch_all(conn)
    .await?;
    let read = |row: &sqlx::mysql::MySqlRow| -> Result<_, Error> {
        let filing = Filing {
            return_id: row.try_get("id")?,
            order_id: row.try_get("order_id")?,
            first_event: row.try_get("event_id")?,
        };
        Ok((filing.return_id, filing))
    };
    rows.iter().map(read).collect()
}

/// How orders are locked: for a claim they must not change, and a settlement changes what was refunded of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderLock {
    Share,
    Update,
}

impl OrderLock {
    fn clause(self) -> &'static str {
        match self {
            Self::Share => "FOR SHARE",
            Self::Update => "FOR UPDATE",
        }
    }
}

/// Locks orders, which must be sorted. Orders that another transaction holds are left out, as are absent ones: it never
/// waits. What was refunded is read after all of them are locked, because the inner query is not merged. In one loop over
/// both, MySQL would read every return as it was before the second order was locked, and miss a refund that was
/// committed in between.
pub async fn lock_orders(
    conn: &mut Conn,
    ids: &[OrderId],
    lock: OrderLock,
) -> Result<HashMap<OrderId, OrderFacts>, Error> {
    debug_assert!(ids.is_sorted());
    let sql = format!(
        "/* lock_orders */ SELECT /*+ NO_MERGE(o) */ {ORDER}, {REFUNDED_HERE} \
         FROM (SELECT {ORDER} FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS wanted \
         STRAIGHT_JOIN orders AS o FORCE INDEX (PRIMARY) ON o.id = wanted.id {} OF o SKIP LOCKED) AS o",
        lock.clause()
    );
    let orders: Vec<OrderFacts> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(json!(ids).to_string())
        .fetch_all(conn)
        .await?;
    Ok(orders.into_iter().map(|order| (order.id, order)).collect())
}

/// Which of these events the inbox of `consumer` holds.
pub async fn read_inbox(
    conn: &mut Conn,
    consumer: &str,
    events: &[EventId],
) -> Result<HashSet<EventId>, Error> {
    let events: Vec<String> = events.iter().map(|event| hex(event.0)).collect();
    let rows = sqlx::query(
        "/* read_inbox */ SELECT i.event_id \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (event_id CHAR(32) PATH '$')) AS wanted \
         STRAIGHT_JOIN inbox AS i FORCE INDEX (PRIMARY) ON i.consumer = ? AND i.event_id = UNHEX(wanted.event_id)",
    )
    .bind(json!(events).to_string())
    .bind(consumer)
    .fetch_all(conn)
    .await?;
    let read = |row: &sqlx::mysql::MySqlRow| Ok(row.try_get("event_id")?);
    rows.iter().map(read).collect()
}

/// Remembers events as handled; they must be new and sorted.
pub async fn insert_inbox(
    conn: &mut Conn,
    consumer: &str,
    events: &[EventId],
    now: OffsetDateTime,
) -> Result<(), Error> {
    debug_assert!(events.is_sorted());
    if events.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = events.iter().map(|event| hex(event.0)).collect();
    let wrote = sqlx::query(
        "/* insert_inbox */ INSERT INTO inbox (consumer, event_id, received_at) \
         SELECT ?, UNHEX(new.event_id), ? \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (event_id CHAR(32) PATH '$')) AS new",
    )
    .bind(consumer)
    .bind(now)
    .bind(json!(list).to_string())
    .execute(conn)
    .await?
    .rows_affected();
    expect_rows("inbox", events.len(), wrote)
}

/// The columns that all attempts of one claim have in common.
#[derive(Debug, Clone, Copy)]
pub struct NewAttempts<'a> {
    pub owner: Uuid,
    pub gateway: &'a str,
    pub call_deadline: OffsetDateTime,
    /// If so, a claimed attempt counts as sent from now on.
    pub native_idempotency: bool,
    pub now: OffsetDateTime,
}

/// Records attempts, which must be sorted by id.
pub async fn insert_attempts(
    conn: &mut Conn,
    attempts: &[OwnedAttempt],
    shared: &NewAttempts<'_>,
) -> Result<(), Error> {
    debug_assert!(attempts.is_sorted_by_key(|attempt| attempt.id));
    if attempts.is_empty() {
        return Ok(());
    }
    let rows: Vec<Value> = attempts
        .iter()
        .map(|attempt| {
            json!({
                "return_id": attempt.id.return_id,
                "attempt": attempt.id.number,
                "key": attempt.key.0,
                "amount": attempt.amount.amount.to_string(),
                "currency": attempt.amount.currency,
            })
        })
        .collect();
    let wrote = sqlx::query(
        "/* insert_attempts */ INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, \
         owner, call_deadline, first_sent_at, sent_with_key, next_check_at, checks, gateway, created_at, updated_at) \
         SELECT new.return_id, new.attempt, new.idem_key, CAST(new.amount AS DECIMAL(19,4)), new.currency, 'claimed', \
         UNHEX(?), ?, ?, ?, ?, 0, ?, ?, ? \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (return_id BIGINT PATH '$.return_id', attempt INT PATH '$.attempt', \
         idem_key VARCHAR(64) PATH '$.key', amount VARCHAR(32) PATH '$.amount', currency CHAR(3) PATH '$.currency')) AS new",
    )
    .bind(hex(shared.owner))
    .bind(datetime(shared.call_deadline))
    .bind(shared.native_idempotency.then(|| datetime(shared.now)))
    .bind(shared.native_idempotency)
    .bind(datetime(shared.call_deadline))
    .bind(shared.gateway)
    .bind(datetime(shared.now))
    .bind(datetime(shared.now))
    .bind(Value::from(rows).to_string())
    .execute(conn)
    .await?
    .rows_affected();
    expect_rows("refunds", attempts.len(), wrote)
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

/// Keeps a record byte for byte. A record that is already kept is no error: it was delivered again.
pub async fn insert_dead_letter(conn: &mut Conn, dead_letter: &DeadLetter) -> Result<(), Error> {
    let record = &dead_letter.record;
    sqlx::query(
        "/* insert_dead_letter */ INSERT INTO dead_letters (topic, partition_id, offset_id, record_time, msg_key, \
         payload, headers, reason, received_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6)) \
         ON DUPLICATE KEY UPDATE id = id",
    )
    .bind(&record.topic)
    .bind(record.partition)
    .bind(record.offset)
    .bind(record.time_ms)
    .bind(&record.key)
    .bind(&record.payload)
    .bind(dead_letter.headers().into_bytes())
    .bind(dead_letter.reason.as_str())
    .execute(conn)
    .await?;
    Ok(())
}
