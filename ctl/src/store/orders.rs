//! The shop's orders: written for development only, by `seed`.

use shared::domain::ids::{CustomerId, OrderId};
use sqlx::mysql::MySqlConnection;

/// Rows per statement: MySQL's `cte_max_recursion_depth` is 1,000 by default.
pub(crate) const ROWS_PER_STATEMENT: i64 = 1_000;

/// The customers of seeded orders.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Buyers {
    One(CustomerId),
    /// Order i belongs to customer 1 + (i mod this).
    Many(i64),
}

/// The highest order id, or 0.
pub(crate) async fn highest_order(conn: &mut MySqlConnection) -> sqlx::Result<OrderId> {
    sqlx::query_scalar("/* highest_order */ SELECT COALESCE(MAX(id), 0) FROM orders")
        .fetch_one(conn)
        .await
        .map(OrderId)
}

/// The number of orders with an id in `first..=last`.
pub(crate) async fn orders_between(
    conn: &mut MySqlConnection,
    first: OrderId,
    last: OrderId,
) -> sqlx::Result<i64> {
    sqlx::query_scalar("/* orders_between */ SELECT COUNT(*) FROM orders WHERE id BETWEEN ? AND ?")
        .bind(first)
        .bind(last)
        .fetch_one(conn)
        .await
}

/// Inserts delivered orders `first..=last`, at most [`ROWS_PER_STATEMENT`].
///
/// MySQL makes the rows itself, so that a statement is five numbers on the wire instead of six thousand.
/// Everything but the day of delivery follows from the id.
pub(crate) async fn insert_orders(
    conn: &mut MySqlConnection,
    first: OrderId,
    last: OrderId,
    buyers: Buyers,
) -> sqlx::Result<u64> {
    let (one, many) = match buyers {
        Buyers::One(customer) => (customer.0, 1),
        Buyers::Many(customers) => (0, customers),
    };
    let inserted = sqlx::query(
        "/* insert_orders */ INSERT INTO orders (id, customer_id, total, currency, status, delivered_at) \
         WITH RECURSIVE seeded (id) AS \
         (SELECT CAST(? AS SIGNED) UNION ALL SELECT id + 1 FROM seeded WHERE id < ?) \
         SELECT id, IF(? > 0, ?, 1 + id MOD ?), (1000 + (id MOD 49000) * 7919 MOD 49000) / 100, 'EUR', 'delivered', \
         TIMESTAMP(UTC_DATE()) - INTERVAL 1 + id MOD 7 DAY FROM seeded",
    )
    .bind(first)
    .bind(last)
    .bind(one)
    .bind(one)
    .bind(many)
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected())
}
