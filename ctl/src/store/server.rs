//! The server's settings and clock, for `doctor`.

use sqlx::mysql::MySqlConnection;
use sqlx::{FromRow, Row};
use time::PrimitiveDateTime;

/// The server's settings, as a session of our programs sees them.
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
    pub(crate) idle_timeout_secs: i64,
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
         CAST(@@SESSION.wait_timeout AS SIGNED) AS idle_timeout_secs",
    )
    .fetch_one(conn)
    .await
}

/// Prepared statements of all clients together, and how many there may be.
pub(crate) async fn prepared_statements(conn: &mut MySqlConnection) -> sqlx::Result<(i64, i64)> {
    let most = sqlx::query_scalar(
        "/* prepared_statements */ SELECT CAST(@@GLOBAL.max_prepared_stmt_count AS SIGNED)",
    )
    .fetch_one(&mut *conn)
    .await?;
    let count = sqlx::query("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'")
        .fetch_one(conn)
        .await?;
    let count: String = count.try_get(1)?;
    let count = count
        .parse()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok((count, most))
}

/// The server's clock, in UTC.
pub(crate) async fn server_clock(conn: &mut MySqlConnection) -> sqlx::Result<PrimitiveDateTime> {
    sqlx::query_scalar("/* server_clock */ SELECT UTC_TIMESTAMP(6)")
        .fetch_one(conn)
        .await
}

/// Deleted row versions that InnoDB has not purged yet; `None` if this user may not read the number.
pub(crate) async fn purge_backlog(conn: &mut MySqlConnection) -> sqlx::Result<Option<i64>> {
    let rows = sqlx::query(
        "/* purge_backlog */ SELECT CAST(count AS SIGNED) AS backlog FROM information_schema.innodb_metrics \
         WHERE name = 'trx_rseg_history_len'",
    )
    .fetch_optional(conn)
    .await?;
    rows.map(|row| row.try_get("backlog")).transpose()
}
