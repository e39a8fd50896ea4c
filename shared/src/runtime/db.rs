//! The one way to use MySQL.
//!
//! [`Database`] runs named units of work and transactions, each with a deadline and in a task of its own. This file says
//! where MySQL is and what holds for every session; `db/run.rs` is the runner; `db/failure.rs` says what errors mean.

mod connections;
mod failure;
mod numbers;
mod run;
mod statement_span;
mod url;

use std::error::Error;
use std::time::{Duration, Instant};

use prometheus::{HistogramVec, IntCounterVec};

use secrecy::{ExposeSecret, SecretString};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, MySqlConnection, Row};

pub use self::failure::{DbError, DbFailure, mysql_number};
use self::run::OUTCOMES;
pub use self::run::{Database, Retry, TransactionError};
use self::url::read_url;
pub use self::url::server_of;
use crate::runtime::metrics::MetricSet;

/// Where MySQL is.
#[derive(Debug, Clone, clap::Args)]
pub struct DbArgs {
    /// MySQL connection URL, `mysql://user:password@host:port/database?ssl-mode=MODE`. Across a network use `VERIFY_IDENTITY`
    /// or `VERIFY_CA`, with `&ssl-ca=FILE`. Only for this machine (loopback or socket) the mode may be left out; there
    /// `DISABLED` saves the TLS handshake.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_parser = parse_url)]
    pub database_url: SecretString,

    /// Most connections this process opens. Too low makes requests wait, too high wastes server memory and adds
    /// lock contention.
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_max_connections: u32,
}

/// How long a statement waits for a row lock before error 1205: well under every request deadline.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// The same for a table's metadata lock (`LOCK TABLES`, DDL). The server's default is a year.
const METADATA_LOCK_WAIT: Duration = Duration::from_secs(10);
/// The server ends a session that is idle for this long: a frozen process must not hold locks for hours. [`Database`]
/// closes its idle connections after 10 s.
const SESSION_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a session that may lock a row of `outbox_lease`. The shard's relay, and a relay that would take over,
/// wait for that row, so a frozen session must lose it before a lease of the usual length ends.
const LEASE_LOCK_IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Prepared statements per connection. Grouped inserts have one text per group size, so the default of 100 would evict
/// statements, and an eviction sends a packet without a reply, which stalls on Nagle's algorithm (sqlx issue 4335).
const STATEMENTS: usize = 1_000;

impl DbArgs {
    /// Host and port, for messages.
    pub fn server(&self) -> String {
        match read_url(self.database_url.expose_secret()) {
            Ok(options) => server_of(&options),
            Err(problem) => problem,
        }
    }

    /// The connection options, or a message that names what is wrong with the URL without repeating it.
    ///
    /// # Errors
    /// The URL is not a MySQL URL, or names no database.
    pub fn options(&self) -> Result<MySqlConnectOptions, String> {
        let options = read_url(self.database_url.expose_secret())?;
        Ok(options
            .statement_cache_capacity(STATEMENTS)
            .timezone(Some("+00:00".to_owned()))
            .pipes_as_concat(false)
            .log_statements(tracing::log::LevelFilter::Trace)
            .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1)))
    }
}

fn parse_url(text: &str) -> Result<SecretString, String> {
    read_url(text).map(|_| SecretString::from(text))
}

/// One connection under this system's session rules.
///
/// # Errors
/// MySQL cannot be reached or refuses the login.
pub async fn connect(options: &MySqlConnectOptions) -> sqlx::Result<MySqlConnection> {
    let mut conn = options.connect().await?;
    conn.execute(AssertSqlSafe(session_rules())).await?;
    Ok(conn)
}

/// Whether the server of this connection is a primary, or a server that stands alone.
async fn takes_writes(conn: &mut MySqlConnection) -> sqlx::Result<bool> {
    let row = conn
        .fetch_one("/* takes_writes */ SELECT @@GLOBAL.read_only = 0")
        .await?;
    row.try_get(0)
}

/// What must hold in every session, although an administrator or a cluster may set other defaults for new sessions.
///
/// Strict mode, because text that is cut in silence would no longer match its hash. Single statements commit themselves,
/// and COMMIT only commits. Multi-row inserts rely on consecutive ids. No statement returns fewer rows than it found, or
/// is refused for its form. Any account may set these for its own session.
pub(crate) const SESSION_RULES: &str = "SET SESSION transaction_isolation = 'READ-COMMITTED', sql_mode = 'TRADITIONAL,ONLY_FULL_GROUP_BY', \
     autocommit = 1, completion_type = 'NO_CHAIN', auto_increment_increment = 1, auto_increment_offset = 1, \
     foreign_key_checks = 1, unique_checks = 1, sql_select_limit = 18446744073709551615, sql_big_selects = 1, \
     sql_safe_updates = 0, max_execution_time = 0";

/// [`SESSION_RULES`] and the limits of a session, as one statement.
pub(crate) fn session_rules() -> String {
    format!(
        "{SESSION_RULES}, innodb_lock_wait_timeout = {}, lock_wait_timeout = {}, wait_timeout = {idle}, \
         net_read_timeout = {idle}, net_write_timeout = {idle}",
        LOCK_WAIT.as_secs(),
        METADATA_LOCK_WAIT.as_secs(),
        idle = SESSION_IDLE_TIMEOUT.as_secs(),
    )
}

/// Call before a transaction that locks a row of `outbox_lease`: if this process freezes, the server ends the session
/// soon.
///
/// # Errors
/// A database error.
pub async fn shorten_idle_timeout(conn: &mut MySqlConnection) -> sqlx::Result<()> {
    let sql = format!(
        "/* shorten_idle_timeout */ SET SESSION wait_timeout = {}",
        LEASE_LOCK_IDLE_TIMEOUT.as_secs()
    );
    conn.execute(AssertSqlSafe(sql)).await?;
    Ok(())
}

/// Times and errors, shared by every [`Database`] of a program.
#[derive(Debug, Clone)]
pub struct DbMetrics {
    seconds: HistogramVec,
    errors: IntCounterVec,
}

impl DbMetrics {
    /// Registers both.
    pub fn new(metrics: &MetricSet) -> Self {
        Self {
            seconds: metrics.histograms(
                "db_client_operation_duration_seconds",
                "Seconds of one unit of work, or of one try of a transaction, with the wait for a connection; by its name and how it ended",
                &[("operation", &[]), ("outcome", &OUTCOMES)],
                &[
                    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0,
                ],
            ),
            errors: metrics.counters(
                "db_client_errors_total",
                "Errors that MySQL sent, by their number in its manual; `unlisted` for those that the programs do not know",
                "number",
                &[],
            ),
        }
    }

    /// Counts the error that MySQL sent, if `error` comes from one.
    fn count(&self, error: Option<&(dyn Error + 'static)>) {
        if let Some(number) = error.and_then(mysql_number) {
            let number = numbers::label(number);
            self.errors.with_label_values(&[&number]).inc();
        }
    }

    fn observe(&self, operation: &'static str, began: Instant, outcome: &'static str) {
        debug_assert!(OUTCOMES.contains(&outcome), "{outcome} is not known");
        self.seconds
            .with_label_values(&[operation, outcome])
            .observe(began.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_password() {
        let args = DbArgs {
            database_url: "mysql://root:s3cret@localhost/returns".into(),
            database_max_connections: 1,
        };
        assert!(!format!("{args:?}").contains("s3cret"));
    }

    #[test]
    fn a_bad_url_is_refused_without_repeating_it() {
        for url in [
            "postgres://u:s3cret@h/d",
            "mysql://u:s3cret@h",
            "mysql://u:s3cret@h:x/d",
        ] {
            let args = DbArgs {
                database_url: url.into(),
                database_max_connections: 1,
            };
            let message = args.options().expect_err("must be refused");
            assert!(!message.contains("s3cret"), "{message}");
        }
    }
}
