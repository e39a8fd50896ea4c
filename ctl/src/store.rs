//! All SQL of this crate.

pub(crate) mod actions;
pub(crate) mod dead_letters;
pub(crate) mod findings;
pub(crate) mod operate;
pub(crate) mod outbox;
pub(crate) mod redrive;
pub(crate) mod refunds;
pub(crate) mod settle;
pub(crate) mod tokens;

use shared::domain::ids::OrderId;
use sqlx::mysql::MySqlConnection;
use sqlx::{FromRow, Row};
use time::PrimitiveDateTime;

use crate::seed::Buyers;

/// Rows per statement: MySQL's `cte_max_recursion_depth` is 1,000 by default.
pub(crate) const ROWS_PER_STATEMENT: i64 = 1_000;

/// The highest order id, or 0.
pub(crate) async fn highest_order(conn: &mut MySqlConnection) -> sqlx::Result<OrderId> {
    sqlx::query_scalar("/* highest_order */ SELECT COALESCE(MAX(id), 0) FROM orders")
        .fetch_one(conn)
        .await
        .map(OrderId)
}

/// How many orders have an id of `first..=last`.
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
/// The rows are made inside MySQL, so that a statement is five numbers on the wire instead of six thousand.
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

/// What a session of our pool sees of the server.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct ServerSettings {
    pub(crate) version: String,
    pub(crate) isolation: String,
    pub(crate) time_zone: String,
    /// `NOW()` less `UTC_TIMESTAMP()`.
    pub(crate) zone_offset_secs: i64,
    pub(crate) auto_increment_increment: i64,
    pub(crate) flush_log_at_commit: i64,
    pub(crate) sync_binlog: i64,
    pub(crate) log_bin: i64,
    pub(crate) read_only: i64,
    pub(crate) sql_mode: String,
    pub(crate) lock_wait_secs: i64,
    pub(crate) silence_secs: i64,
}

pub(crate) async fn server_settings(conn: &mut MySqlConnection) -> sqlx::Result<ServerSettings> {
    sqlx::query_as(
        "/* server_settings */ SELECT VERSION() AS version, @@SESSION.transaction_isolation AS isolation, \
         @@SESSION.time_zone AS time_zone, \
         CAST(TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), NOW()) AS SIGNED) AS zone_offset_secs, \
         CAST(@@SESSION.auto_increment_increment AS SIGNED) AS auto_increment_increment, \
         CAST(@@GLOBAL.innodb_flush_log_at_trx_commit AS SIGNED) AS flush_log_at_commit, \
         CAST(@@GLOBAL.sync_binlog AS SIGNED) AS sync_binlog, CAST(@@GLOBAL.log_bin AS SIGNED) AS log_bin, \
         CAST(@@GLOBAL.read_only AS SIGNED) AS read_only, @@SESSION.sql_mode AS sql_mode, \
         CAST(@@SESSION.innodb_lock_wait_timeout AS SIGNED) AS lock_wait_secs, \
         CAST(@@SESSION.wait_timeout AS SIGNED) AS silence_secs",
    )
    .fetch_one(conn)
    .await
}

/// The server's clock, in UTC.
pub(crate) async fn server_clock(conn: &mut MySqlConnection) -> sqlx::Result<PrimitiveDateTime> {
    sqlx::query_scalar("/* server_clock */ SELECT UTC_TIMESTAMP(6)")
        .fetch_one(conn)
        .await
}

/// Deleted row versions that InnoDB has still to purge, or `None` if this user may not know.
pub(crate) async fn purge_backlog(conn: &mut MySqlConnection) -> sqlx::Result<Option<i64>> {
    let rows = sqlx::query(
        "/* purge_backlog */ SELECT CAST(count AS SIGNED) AS backlog FROM information_schema.innodb_metrics \
         WHERE name = 'trx_rseg_history_len'",
    )
    .fetch_optional(conn)
    .await?;
    rows.map(|row| row.try_get("backlog")).transpose()
}
