//! The schema that this build needs. `returnsctl migrate` applies it; the other programs only check it.

mod migrate;

use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, MySqlConnection};

use crate::runtime::db::{Database, DbError};

pub use migrate::{LOCK_WAIT, Repair, migrate, migrate_within, repair};

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(
        "the database has schema version {found}, this program needs {needed}: run `returnsctl migrate`"
    )]
    TooOld { found: i64, needed: i64 },
    #[error("the database has no schema: run `returnsctl migrate`")]
    Missing,
    #[error("another migration run has held the lock for {waited_secs} s, on MySQL connection {}",
        holder.map_or_else(|| "unknown".to_owned(), |id| id.to_string()))]
    Locked {
        waited_secs: u64,
        holder: Option<u64>,
    },
    /// The statement was refused. It changed nothing and its mark was removed: fix the cause and run again.
    #[error("migration {file} failed and changed nothing")]
    Failed { file: String, source: sqlx::Error },
    /// An earlier run ended while this migration ran, so it is not known whether its statement took effect.
    #[error("migration {file} was begun and its end was never recorded")]
    Interrupted { version: i64, file: String },
    #[error("migration {version} is not marked as interrupted")]
    NotInterrupted { version: i64 },
    #[error(
        "the database has migration {0}, which this build does not know: use the newer `returnsctl`"
    )]
    Unknown(i64),
    #[error("migration {file} was edited after it was applied: restore the file as it was shipped")]
    Edited { file: String },
    #[error("database")]
    Database(#[from] DbError),
}

impl From<sqlx::Error> for SchemaError {
    fn from(error: sqlx::Error) -> Self {
        DbError::from(error).into()
    }
}

/// The newest migration of this build.
pub fn version() -> i64 {
    MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .expect("migrations/ is not empty")
}

/// For the few statements of [`check`].
const CHECK_DEADLINE: Duration = Duration::from_secs(10);

/// Checks at a program's start that the schema is at least the one this build needs.
///
/// # Errors
/// Says which command to run, or that the database cannot be reached.
pub async fn check(db: &Database) -> Result<(), SchemaError> {
    db.run("check_schema", CHECK_DEADLINE, |conn| {
        Box::pin(check_on(conn))
    })
    .await
}

async fn check_on(conn: &mut MySqlConnection) -> Result<(), SchemaError> {
    let found = applied(conn).await?.into_iter().max();
    let needed = version();
    match found {
        None => Err(SchemaError::Missing),
        Some(found) if found < needed => Err(SchemaError::TooOld { found, needed }),
        Some(_) => Ok(()),
    }
}

/// The versions applied so far. There are none if the table of migrations does not exist.
async fn applied(conn: &mut MySqlConnection) -> Result<Vec<i64>, sqlx::Error> {
    let tables: i64 = sqlx::query_scalar(
        "/* schema::applied */ SELECT COUNT(*) FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND table_name = '_sqlx_migrations'",
    )
    .fetch_one(&mut *conn)
    .await?;
    if tables == 0 {
        return Ok(Vec::new());
    }
    sqlx::query_scalar(AssertSqlSafe(
        "/* schema::applied */ SELECT version FROM _sqlx_migrations WHERE success",
    ))
    .fetch_all(conn)
    .await
}
