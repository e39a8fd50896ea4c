//! All SQL of the api, but for what `shared::transition` writes.
//!
//! One statement per function; lists are bound as one JSON parameter, so every text is static and is prepared once
//! per connection. Grouped reads that lock start at the list and force the index.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use rust_decimal::Decimal;
use serde_json::json;
use shared::eligibility::OrderFacts;
use shared::ids::{CustomerId, OrderId, ReturnId, Shard};
use shared::money::{Currency, Money};
use shared::status::Status;
use shared::transition::Filed;
use sqlx::mysql::{MySqlPool, MySqlRow};
use sqlx::{MySqlConnection, QueryBuilder, Row};
use time::OffsetDateTime;

use crate::backlog::Backlog;
use crate::idempotency::{EXPIRY_BATCH, IdempotencyKey, StoredAnswer};

/// What to do about an order that another session has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderLock {
    /// Leave it out: one locked order must not stall a group of strangers.
    SkipLocked,
    Wait,
}

/// A locked order with its open return and the database's clock.
#[derive(Debug)]
pub(crate) struct OrderRow {
    pub(crate) id: OrderId,
    /// `None` if the shop's copy cannot be understood; the log says why.
    pub(crate) facts: Option<OrderFacts>,
    pub(crate) open_return: Option<ReturnId>,
    pub(crate) now: OffsetDateTime,
}

/// Locks and reads orders; those that do not exist, or that are to be skipped, are left out.
///
/// The lock is exclusive although orders are only read: a rival filing of the same order in another session holds it
/// too, and is skipped, instead of letting the whole group wait at the insert. The open return is a plain read: under
/// SKIP LOCKED a locked one would look like none. Clock and open return are read once the locks are held.
pub(crate) async fn read_orders(
    conn: &mut MySqlConnection,
    ids: &[OrderId],
    lock: OrderLock,
) -> sqlx::Result<Vec<OrderRow>> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let ids = json!(ids).to_string();
    match lock {
        OrderLock::SkipLocked => {}
        OrderLock::Wait => lock_orders(conn, &ids).await?,
    }
    let rows = sqlx::query(
        "/* read_orders */ SELECT o.id, o.customer_id, o.total, o.currency, o.status, o.delivered_at, \
         o.refunded_amount, r.id AS open_return, UTC_TIMESTAMP(6) AS now \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS wanted \
         STRAIGHT_JOIN orders AS o FORCE INDEX (PRIMARY) ON o.id = wanted.id \
         LEFT JOIN returns AS r FORCE INDEX (one_open_return_per_order) ON r.open_order_id = wanted.id \
         FOR UPDATE OF o SKIP LOCKED",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    rows.iter().map(order_row).collect()
}

/// Waits for the locks of `ids`, a JSON list in ascending order.
async fn lock_orders(conn: &mut MySqlConnection, ids: &str) -> sqlx::Result<()> {
    sqlx::query(
        "/* lock_orders */ SELECT o.id FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS wanted \
         STRAIGHT_JOIN orders AS o FORCE INDEX (PRIMARY) ON o.id = wanted.id FOR UPDATE OF o",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    Ok(())
}

fn order_row(row: &MySqlRow) -> sqlx::Result<OrderRow> {
    let id: OrderId = row.try_get("id")?;
    let facts = order_facts(row, id);
    if let Err(error) = &facts {
        tracing::error!(%error, order.id = %id, "an order of the shop cannot be understood");
    }
    Ok(OrderRow {
        id,
        facts: facts.ok(),
        open_return: row.try_get("open_return")?,
        now: row.try_get("now")?,
    })
}

fn order_facts(row: &MySqlRow, id: OrderId) -> sqlx::Result<OrderFacts> {
    let currency: String = row.try_get("currency")?;
    Ok(OrderFacts {
        id,
        customer_id: row.try_get("customer_id")?,
        total: money(row, "total", &currency)?,
        refunded_amount: money(row, "refunded_amount", &currency)?,
        status: row.try_get("status")?,
        delivered_at: row.try_get("delivered_at")?,
    })
}

fn money(row: &MySqlRow, column: &str, currency: &str) -> sqlx::Result<Money> {
    let amount: Decimal = row.try_get(column)?;
    let currency = Currency::parse(currency).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Money::new(amount, currency))
}

/// The stored answers among `keys`, by actor and key.
pub(crate) async fn read_answers<'k>(
    conn: &mut MySqlConnection,
    keys: &[&'k IdempotencyKey],
) -> sqlx::Result<HashMap<(&'k str, &'k str), StoredAnswer>> {
    let wanted: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(at, key)| json!({"at": at, "actor": key.actor, "key": key.key}))
        .collect();
    let rows = sqlx::query(
        "/* read_answers */ SELECT wanted.at, i.fingerprint, i.body \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (at BIGINT PATH '$.at', \
         actor VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin PATH '$.actor', \
         idem_key VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin PATH '$.key')) AS wanted \
         STRAIGHT_JOIN idempotency AS i FORCE INDEX (PRIMARY) \
         ON i.actor = wanted.actor AND i.idem_key = wanted.idem_key",
    )
    .bind(json!(wanted).to_string())
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let at: i64 = row.try_get("at")?;
            let fingerprint: Vec<u8> = row.try_get("fingerprint")?;
            let body: Vec<u8> = row.try_get("body")?;
            let key = usize::try_from(at)
                .ok()
                .and_then(|at| keys.get(at))
                .ok_or(sqlx::Error::RowNotFound)?;
            let fingerprint = fingerprint
                .try_into()
                .map_err(|_| sqlx::Error::Decode("a fingerprint has 32 bytes".into()))?;
            let answer = StoredAnswer {
                fingerprint,
                body: Bytes::from(body),
            };
            Ok(((key.actor.as_str(), key.key.as_str()), answer))
        })
        .collect()
}

/// Stores 201 answers; sorted by key by the caller.
pub(crate) async fn insert_answers(
    conn: &mut MySqlConnection,
    now: OffsetDateTime,
    answers: &[(&IdempotencyKey, Bytes)],
) -> sqlx::Result<()> {
    if answers.is_empty() {
        return Ok(());
    }
    let mut insert = QueryBuilder::new(
        "/* insert_answers */ INSERT INTO idempotency (actor, idem_key, fingerprint, status, body, created_at) ",
    );
    insert.push_values(answers, |mut values, (key, body)| {
        values
            .push_bind(&key.actor)
            .push_bind(&key.key)
            .push_bind(&key.fingerprint[..])
            .push_bind(201_i16)
            .push_bind(&body[..])
            .push_bind(now);
    });
    insert.build().execute(conn).await?;
    Ok(())
}

/// Deletes at most [`EXPIRY_BATCH`] answers older than 25 hours; answers how many. The hour covers an answer that was
/// dated before it waited for a lock.
pub(crate) async fn delete_expired_keys(pool: &MySqlPool) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "/* delete_expired_keys */ DELETE /*+ INDEX(idempotency created) */ FROM idempotency \
         WHERE created_at < UTC_TIMESTAMP(6) - INTERVAL 25 HOUR ORDER BY created_at LIMIT ?",
    )
    .bind(EXPIRY_BATCH)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// Which of these returns are there, by the event id of their first event: whether a COMMIT whose answer was lost
/// took place. All returns of each order are looked at, because an id may have been given to another return since.
pub(crate) async fn find_by_first_event(
    conn: &mut MySqlConnection,
    filed: &[Filed],
) -> sqlx::Result<HashSet<i64>> {
    let wanted: Vec<_> = filed
        .iter()
        .map(|row| json!({"order_id": row.order_id, "event": row.event_id.0.simple().to_string()}))
        .collect();
    let found: Vec<i64> = sqlx::query_scalar(
        "/* find_by_first_event */ SELECT r.id \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (order_id BIGINT PATH '$.order_id', event CHAR(32) PATH '$.event')) AS wanted \
         STRAIGHT_JOIN returns AS r FORCE INDEX (order_id) ON r.order_id = wanted.order_id \
         STRAIGHT_JOIN return_events AS e FORCE INDEX (return_seq) ON e.return_id = r.id AND e.seq = 1 \
         WHERE e.event_id = UNHEX(wanted.event)",
    )
    .bind(json!(wanted).to_string())
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().collect())
}

/// What waits in one shard of the outbox, exactly; the scan waits for nobody's lock.
///
/// Measured with 686,000 rows of 640 bytes in memory, per million rows: this 1.5 to 2.3 s (0.9 s of CPU), a count by the
/// index on `id` 0.3 s (0.16 s of CPU) but without bytes, `information_schema` 1 ms, but 660,000 rows still after
/// every row was deleted. Rows deleted and not yet purged cost a quarter. A million rows that do not fit into the
/// buffer pool, on a busy machine: 5 to 11 s over all shards, 6 to 15 s in one statement. The server itself ends a scan
/// whose client is gone.
pub(crate) async fn measure_shard(
    conn: &mut MySqlConnection,
    shard: Shard,
) -> sqlx::Result<Backlog> {
    let row = sqlx::query(
        "/* measure_shard */ SELECT /*+ MAX_EXECUTION_TIME(30000) */ COUNT(*) AS row_count, \
         CAST(COALESCE(SUM(LENGTH(payload)), 0) AS UNSIGNED) AS bytes, \
         TIMESTAMPDIFF(MICROSECOND, MIN(created_at), UTC_TIMESTAMP(6)) AS age_us \
         FROM outbox FORCE INDEX (PRIMARY) WHERE shard = ?",
    )
    .bind(shard)
    .fetch_one(conn)
    .await?;
    let rows: i64 = row.try_get("row_count")?;
    let age_us: Option<i64> = row.try_get("age_us")?;
    Ok(Backlog {
        rows: rows.unsigned_abs(),
        bytes: row.try_get("bytes")?,
        // A row that committed after the statement began may be dated later than it.
        oldest_age: Duration::from_micros(age_us.unwrap_or(0).try_into().unwrap_or(0)),
    })
}

/// A return as its owner or an admin sees it.
#[derive(Debug, Clone)]
pub(crate) struct ReturnRow {
    pub(crate) id: ReturnId,
    pub(crate) order_id: OrderId,
    pub(crate) customer_id: CustomerId,
    pub(crate) reason: String,
    pub(crate) reason_code: Option<String>,
    pub(crate) status: Status,
    pub(crate) version: i32,
    pub(crate) review_required: bool,
    pub(crate) refund_amount: Money,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

const RETURN_COLUMNS: &str = "id, order_id, customer_id, reason, reason_code, status, version, review_required, \
                              refund_amount, currency, created_at, updated_at";

pub(crate) async fn get_return(pool: &MySqlPool, id: ReturnId) -> sqlx::Result<Option<ReturnRow>> {
    QueryBuilder::new(format!(
        "/* get_return */ SELECT {RETURN_COLUMNS} FROM returns WHERE id = "
    ))
    .push_bind(id)
    .build()
    .fetch_optional(pool)
    .await?
    .as_ref()
    .map(return_row)
    .transpose()
}

/// Which returns a page shows; every field narrows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReturnFilter {
    pub(crate) status: Option<Status>,
    pub(crate) order_id: Option<OrderId>,
    pub(crate) customer_id: Option<CustomerId>,
    pub(crate) created_from: Option<OffsetDateTime>,
    pub(crate) created_before: Option<OffsetDateTime>,
    /// The last row of the page before: pages go on below it.
    pub(crate) after: Option<(OffsetDateTime, ReturnId)>,
}

/// A page of returns, newest first; at most `limit`. Keyset, never OFFSET: a page costs the same however deep.
pub(crate) async fn list_returns(
    pool: &MySqlPool,
    filter: &ReturnFilter,
    limit: u32,
) -> sqlx::Result<Vec<ReturnRow>> {
    let mut query = QueryBuilder::new(format!(
        "/* list_returns */ SELECT {RETURN_COLUMNS} FROM returns WHERE TRUE"
    ));
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(order_id) = filter.order_id {
        query.push(" AND order_id = ").push_bind(order_id);
    }
    if let Some(customer_id) = filter.customer_id {
        query.push(" AND customer_id = ").push_bind(customer_id);
    }
    if let Some(from) = filter.created_from {
        query.push(" AND created_at >= ").push_bind(from);
    }
    if let Some(before) = filter.created_before {
        query.push(" AND created_at < ").push_bind(before);
    }
    if let Some((created_at, id)) = filter.after {
        // The first half lets the index range start here; a row constructor alone would not.
        query
            .push(" AND created_at <= ")
            .push_bind(created_at)
            .push(" AND (created_at < ")
            .push_bind(created_at)
            .push(" OR id < ")
            .push_bind(id)
            .push(")");
    }
    query
        .push(" ORDER BY created_at DESC, id DESC LIMIT ")
        .push_bind(limit);
    query
        .build()
        .fetch_all(pool)
        .await?
        .iter()
        .map(return_row)
        .collect()
}

fn return_row(row: &MySqlRow) -> sqlx::Result<ReturnRow> {
    let status: String = row.try_get("status")?;
    let currency: String = row.try_get("currency")?;
    Ok(ReturnRow {
        id: row.try_get("id")?,
        order_id: row.try_get("order_id")?,
        customer_id: row.try_get("customer_id")?,
        reason: row.try_get("reason")?,
        reason_code: row.try_get("reason_code")?,
        status: Status::parse(&status)
            .ok_or_else(|| sqlx::Error::Decode("an unknown status".into()))?,
        version: row.try_get("version")?,
        review_required: row.try_get("review_required")?,
        refund_amount: money(row, "refund_amount", &currency)?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
