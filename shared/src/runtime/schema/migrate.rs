//! Applies migrations: one run at a time, and repeatable after every kind of failure.
//!
//! The lock belongs to a connection of its own, so it is always released with that connection. sqlx's own lock is off,
//! because sqlx does not release it when a migration fails.
//!
//! Each file holds one statement, and MySQL's DDL is atomic since 8.0 ("Atomic Data Definition Statement Support"):
//! a statement that was refused changed nothing. sqlx marks a migration as begun before it runs, and DDL commits that
//! mark. After a refusal this module removes the mark, so that the next run tries again. Only an interrupted run leaves
//! the mark, and then a person has to find out what happened ([`repair`]).

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, MySqlConnection};

use super::{MIGRATOR, SchemaError, applied};
use crate::runtime::db::{DbFailure, SESSION_RULES};

/// How long one migration run waits for another.
pub const LOCK_WAIT: Duration = Duration::from_secs(60);

/// What a person found out about an interrupted migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Its statement took effect: record it as applied.
    TookEffect,
    /// Its statement had no effect: run it again.
    HadNoEffect,
}

/// Applies the missing migrations and returns how many ran. It does not create the database.
///
/// # Errors
/// Another run holds the lock for [`LOCK_WAIT`], a migration fails, or the database cannot be reached.
pub async fn migrate(options: &MySqlConnectOptions) -> Result<usize, SchemaError> {
    migrate_within(options, LOCK_WAIT).await
}

/// [`migrate`] with another time to wait for the lock, in whole seconds.
///
/// # Errors
/// As [`migrate`].
pub async fn migrate_within(
    options: &MySqlConnectOptions,
    lock_wait: Duration,
) -> Result<usize, SchemaError> {
    let mut conn = locked(options, lock_wait).await?;
    let outcome = apply(&mut conn).await;
    // Closed also after a failure, so that the lock is free when the message is shown.
    let closed = conn.close().await;
    let count = outcome?;
    closed?;
    Ok(count)
}

/// Ends an interrupted migration in the way that a person has found out.
///
/// # Errors
/// The migration is not marked as interrupted, another run holds the lock, or the database cannot be reached.
pub async fn repair(
    options: &MySqlConnectOptions,
    version: i64,
    finding: Repair,
    lock_wait: Duration,
) -> Result<(), SchemaError> {
    let mut conn = locked(options, lock_wait).await?;
    let changed = match finding {
        Repair::TookEffect => set_applied(&mut conn, version).await?,
        Repair::HadNoEffect => remove_mark(&mut conn, version).await?,
    };
    conn.close().await?;
    if changed == 1 {
        Ok(())
    } else {
        Err(SchemaError::NotInterrupted { version })
    }
}

async fn apply(conn: &mut MySqlConnection) -> Result<usize, SchemaError> {
    let before = applied(conn).await?.len();
    let mut migrator = Migrator::with_migrations(MIGRATOR.iter().cloned().collect());
    migrator.set_locking(false);
    match migrator.run_direct(None, conn, false).await {
        Ok(()) => Ok(applied(conn).await?.len() - before),
        Err(MigrateError::ExecuteMigration(source, version)) => {
            Err(failed(conn, version, source).await)
        }
        Err(MigrateError::Execute(source)) => Err(source.into()),
        Err(MigrateError::Dirty(version)) => Err(interrupted(version)),
        Err(MigrateError::VersionMissing(version)) => Err(SchemaError::Unknown(version)),
        Err(MigrateError::VersionMismatch(version)) => Err(SchemaError::Edited {
            file: file_name(version),
        }),
        Err(other) => Err(sqlx::Error::from(other).into()),
    }
}

/// Removes the mark after a refusal. If the connection was lost, the outcome is unknown and the mark stays.
async fn failed(conn: &mut MySqlConnection, version: i64, source: sqlx::Error) -> SchemaError {
    let refused = matches!(source, sqlx::Error::Database(_))
        && DbFailure::of(&source) != DbFailure::ConnectionLost;
    if !refused {
        return interrupted(version);
    }
    match remove_mark(conn, version).await {
        Ok(_) => SchemaError::Failed {
            file: file_name(version),
            source,
        },
        Err(_) => interrupted(version),
    }
}

fn interrupted(version: i64) -> SchemaError {
    SchemaError::Interrupted {
        version,
        file: file_name(version),
    }
}

/// The file of a migration in `migrations/`.
fn file_name(version: i64) -> String {
    MIGRATOR
        .iter()
        .find(|migration| migration.version == version)
        .map_or_else(
            || version.to_string(),
            |migration| format!("{version}_{}.sql", migration.description.replace(' ', "_")),
        )
}

/// A connection that holds the lock of this database's migrations.
async fn locked(
    options: &MySqlConnectOptions,
    lock_wait: Duration,
) -> Result<MySqlConnection, SchemaError> {
    let mut conn = options.connect().await?;
    conn.execute(SESSION_RULES).await?;
    // DDL waits for every transaction that has used the table, and all later statements on the table wait for the DDL.
    sqlx::query("/* schema::locked */ SET SESSION lock_wait_timeout = 10")
        .execute(&mut conn)
        .await?;
    let waited_secs = lock_wait.as_secs();
    let locked: Option<i64> = sqlx::query_scalar(
        "/* schema::locked */ SELECT GET_LOCK(CONCAT('returns.migrate.', LEFT(SHA2(DATABASE(), 256), 32)), ?)",
    )
    .bind(waited_secs)
    .fetch_one(&mut conn)
    .await?;
    if locked == Some(1) {
        return Ok(conn);
    }
    let holder = sqlx::query_scalar(
        "/* schema::locked */ SELECT IS_USED_LOCK(CONCAT('returns.migrate.', LEFT(SHA2(DATABASE(), 256), 32)))",
    )
    .fetch_one(&mut conn)
    .await?;
    Err(SchemaError::Locked {
        waited_secs,
        holder,
    })
}

async fn remove_mark(conn: &mut MySqlConnection, version: i64) -> sqlx::Result<u64> {
    let deleted = sqlx::query(
        "/* schema::remove_mark */ DELETE FROM _sqlx_migrations WHERE version = ? AND NOT success",
    )
    .bind(version)
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected())
}

async fn set_applied(conn: &mut MySqlConnection, version: i64) -> sqlx::Result<u64> {
    let updated = sqlx::query(
        "/* schema::set_applied */ UPDATE _sqlx_migrations SET success = TRUE WHERE version = ? AND NOT success",
    )
    .bind(version)
    .execute(conn)
    .await?;
    Ok(updated.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_is_named_by_its_file() {
        assert_eq!(
            file_name(20_261_123_000_006),
            "20261123000006_create_outbox.sql"
        );
    }
}
