//! Orders: read with a lock for a filing, without one for their customers.

use serde_json::{Value, json};
use shared::domain::eligibility::{ORDER, OrderFacts, REFUNDED_HERE};
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, FromRow, MySqlConnection, QueryBuilder, Row};
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
    pub(crate) facts: OrderFacts,
    pub(crate) open_return: Option<ReturnId>,
    pub(crate) now: OffsetDateTime,
}

impl FromRow<'_, MySqlRow> for OrderRow {
    fn from_row(row: &MySqlRow) -> sqlx::Result<Self> {
        Ok(Self {
            facts: OrderFacts::from_row(row)?,
            open_return: row.try_get("open_return")?,
            now: row.try_get("now")?,
        })
    }
}

/// The rows of these orders, found by customer and id in one index. An order of another customer is not found, just as one
/// that does not exist: its row is neither read nor locked.
const OWN_ORDERS: &str = "JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$.id', customer_id BIGINT PATH '$.customer')) AS wanted \
     STRAIGHT_JOIN orders AS o FORCE INDEX (customer) ON o.customer_id = wanted.customer_id AND o.id = wanted.id";

/// Locks and reads orders, each of the customer beside it. Orders that these customers do not have, or that are skipped, are
/// left out.
///
/// The lock is exclusive although orders are only read: a concurrent filing of the same order in another session also
/// locks it. So the order is skipped, instead of delaying the whole group at the insert. The returns are read without
/// a lock, because with SKIP LOCKED a locked return would look like none; and they are read after all orders are locked,
/// because the inner query is not merged. In one loop over both, MySQL would read every return as it was before the second
/// order was locked, and miss a refund that was committed in between.
pub(crate) async fn read_orders(
    conn: &mut MySqlConnection,
    orders: &[(OrderId, CustomerId)],
    lock: OrderLock,
) -> sqlx::Result<Vec<OrderRow>> {
    let mut orders = orders.to_vec();
    orders.sort_unstable();
    let wanted = orders
        .iter()
        .map(|(id, customer)| json!({"id": id, "customer": customer}));
    let wanted = Value::from_iter(wanted).to_string();
    match lock {
        OrderLock::SkipLocked => {}
        OrderLock::Wait => lock_orders(conn, &wanted).await?,
    }
    let sql = format!(
        "/* read_orders */ SELECT /*+ NO_MERGE(o) */ {ORDER}, {REFUNDED_HERE}, r.id AS open_return, UTC_TIMESTAMP(6) AS now \
         FROM (SELECT {ORDER} FROM {OWN_ORDERS} FOR UPDATE OF o SKIP LOCKED) AS o \
         LEFT JOIN returns AS r FORCE INDEX (one_open_return_per_order) ON r.open_order_id = o.id"
    );
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(wanted)
        .fetch_all(conn)
        .await
}

/// Waits for the locks of the `wanted` orders, a JSON list in ascending order.
async fn lock_orders(conn: &mut MySqlConnection, wanted: &str) -> sqlx::Result<()> {
    let sql = format!("/* lock_orders */ SELECT o.id FROM {OWN_ORDERS} FOR UPDATE OF o");
    sqlx::query(AssertSqlSafe(sql))
        .bind(wanted)
        .fetch_all(conn)
        .await?;
    Ok(())
}

/// An order, read without a lock.
pub(crate) async fn get_order(
    conn: &mut MySqlConnection,
    id: OrderId,
) -> sqlx::Result<Option<OrderFacts>> {
    let sql =
        format!("/* get_order */ SELECT {ORDER}, {REFUNDED_HERE} FROM orders AS o WHERE o.id = ?");
    sqlx::query_as(AssertSqlSafe(sql))
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
    let mut query = QueryBuilder::new(format!(
        "/* list_orders */ SELECT /*+ MAX_EXECUTION_TIME(5000) */ {ORDER}, {REFUNDED_HERE}, r.id AS open_return, \
         UTC_TIMESTAMP(6) AS now FROM orders AS o FORCE INDEX (customer) \
         LEFT JOIN returns AS r FORCE INDEX (one_open_return_per_order) ON r.open_order_id = o.id WHERE o.customer_id = "
    ));
    query.push_bind(customer);
    if let Some(before) = before {
        query.push(" AND o.id < ").push_bind(before);
    }
    query.push(" ORDER BY o.id DESC LIMIT ").push_bind(limit);
    query.build_query_as().fetch_all(conn).await
}
