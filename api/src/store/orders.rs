//! Orders: read with a lock for a filing, without one for their customers.

use serde_json::json;
use shared::domain::eligibility::OrderFacts;
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use sqlx::mysql::MySqlRow;
use sqlx::{FromRow, MySqlConnection, QueryBuilder, Row};
use time::OffsetDateTime;

/// How to treat an order that another session has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderLock {
    /// Leave it out: a locked order must not delay the other orders of a group.
    SkipLocked,
    Wait,
}

/// An order with its open return and the database's clock.
#[derive(Debug)]
pub(crate) struct OrderRow {
    pub(crate) id: OrderId,
    /// `None` if the shop's copy cannot be understood; the log says why.
    pub(crate) facts: Option<OrderFacts>,
    pub(crate) open_return: Option<ReturnId>,
    pub(crate) now: OffsetDateTime,
}

/// Locks and reads orders. Orders that do not exist or are skipped are left out.
///
/// The lock is exclusive although orders are only read: a concurrent filing of the same order in another session also
/// locks it. So the order is skipped, instead of delaying the whole group at the insert. The open return is read without
/// a lock, because with SKIP LOCKED a locked return would look like none. Clock and open return are read after the locks
/// are held.
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
    let facts = OrderFacts::from_row(row);
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

/// An order, read without a lock.
pub(crate) async fn get_order(
    conn: &mut MySqlConnection,
    id: OrderId,
) -> sqlx::Result<Option<OrderFacts>> {
    sqlx::query_as(
        "/* get_order */ SELECT id, customer_id, total, currency, status, delivered_at, refunded_amount \
         FROM orders WHERE id = ?",
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// At most `limit` orders of a customer, the highest id first, read without a lock.
pub(crate) async fn list_orders(
    conn: &mut MySqlConnection,
    customer: CustomerId,
    before: Option<OrderId>,
    limit: u32,
) -> sqlx::Result<Vec<OrderRow>> {
    let mut query = QueryBuilder::new(
        "/* list_orders */ SELECT /*+ MAX_EXECUTION_TIME(5000) */ o.id, o.customer_id, o.total, o.currency, o.status, \
         o.delivered_at, o.refunded_amount, r.id AS open_return, UTC_TIMESTAMP(6) AS now FROM orders AS o FORCE INDEX (customer) \
         LEFT JOIN returns AS r FORCE INDEX (one_open_return_per_order) ON r.open_order_id = o.id WHERE o.customer_id = ",
    );
    query.push_bind(customer);
    if let Some(before) = before {
        query.push(" AND o.id < ").push_bind(before);
    }
    query.push(" ORDER BY o.id DESC LIMIT ").push_bind(limit);
    let rows = query.build().fetch_all(conn).await?;
    rows.iter().map(order_row).collect()
}
