//! The MySQL pool, and what its errors mean.
//!
//! sqlx futures are not cancel-safe here: a future dropped in the middle can leave a transaction open on a pooled
//! connection. So a unit of work runs in a spawned task and only its handle is timed out.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, MySqlConnection};

/// Where MySQL is.
#[derive(Debug, Clone, clap::Args)]
pub struct DbArgs {
    /// MySQL connection URL, `mysql://user:password@host:port/database`. On a trusted loopback
    /// `?ssl-mode=DISABLED` saves the TLS handshake; across a network use `VERIFY_CA` or `VERIFY_IDENTITY`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_parser = parse_url)]
    pub database_url: SecretString,

    /// Most connections this process opens. Too low makes requests wait, too high wastes server memory and adds
    /// lock contention.
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_max_connections: u32,
}

/// How long a statement waits for a row lock before error 1205: well under every request deadline.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// The server ends a silent session after this: a frozen process must not hold locks for hours. The pool drops
/// idle connections earlier (`IDLE`), so it never meets the server's cut in ordinary use.
const SESSION_SILENCE: Duration = Duration::from_secs(30);
/// The same for a session that may lock a row of `outbox_lease`: that shard's relay, and whoever would take over, wait
/// for it, so whoever is frozen or cut off meanwhile must let go before a lease of the usual length ends.
const LEASE_LOCK_SILENCE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(10);
/// A connection idle for longer is pinged before use.
const PING_AFTER: Duration = Duration::from_secs(2);
/// Texts of one program: grouped inserts have one per group size, so the default of 100 would evict, and an
/// eviction sends a packet without reply, which stalls on Nagle's algorithm (sqlx issue 4335).
const STATEMENTS: usize = 1_000;

impl DbArgs {
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

    /// A pool that connects when first used.
    ///
    /// # Errors
    /// As [`DbArgs::options`].
    pub fn pool(&self) -> Result<MySqlPool, String> {
        Ok(pool_options(self.database_max_connections).connect_lazy_with(self.options()?))
    }
}

fn parse_url(text: &str) -> Result<SecretString, String> {
    read_url(text).map(|_| SecretString::from(text))
}

/// Never repeats the URL: it may hold a password.
fn read_url(url: &str) -> Result<MySqlConnectOptions, String> {
    if !url.starts_with("mysql://") {
        return Err("DATABASE_URL must start with mysql://".to_owned());
    }
    let options: MySqlConnectOptions = url
        .parse()
        .map_err(|_| "DATABASE_URL is not a valid MySQL URL".to_owned())?;
    if options.get_database().is_none_or(str::is_empty) {
        return Err("DATABASE_URL names no database (mysql://host/DATABASE)".to_owned());
    }
    Ok(options)
}

/// Pool settings with this system's session rules.
pub fn pool_options(max_connections: u32) -> MySqlPoolOptions {
    MySqlPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(Duration::from_secs(2))
        .idle_timeout(IDLE)
        .test_before_acquire(false)
        .before_acquire(|conn, meta| {
            Box::pin(async move {
                if meta.idle_for < PING_AFTER {
                    return Ok(true);
                }
                let ping = tokio::time::timeout(Duration::from_millis(500), conn.ping()).await;
                Ok(matches!(ping, Ok(Ok(()))))
            })
        })
        .after_connect(|conn, _| {
            Box::pin(async move {
                conn.execute(AssertSqlSafe(session_rules())).await?;
                Ok(())
            })
        })
}

/// A connection of one's own, outside the pool, under this system's session rules.
///
/// # Errors
/// MySQL is away or refuses the login.
pub async fn connect(options: &MySqlConnectOptions) -> sqlx::Result<MySqlConnection> {
    let mut conn = options.connect().await?;
    conn.execute(AssertSqlSafe(session_rules())).await?;
    Ok(conn)
}

/// The rules of every session, as one statement. Strict mode, because text that is cut in silence would no longer
/// match its hash.
fn session_rules() -> String {
    format!(
        "SET SESSION transaction_isolation = 'READ-COMMITTED', sql_mode = 'TRADITIONAL,ONLY_FULL_GROUP_BY', \
         innodb_lock_wait_timeout = {}, wait_timeout = {}, net_read_timeout = {}, net_write_timeout = {}",
        LOCK_WAIT.as_secs(),
        SESSION_SILENCE.as_secs(),
        SESSION_SILENCE.as_secs(),
        SESSION_SILENCE.as_secs(),
    )
}

/// Before a transaction that locks a row of `outbox_lease`: if we fall silent, the server ends the session soon.
///
/// # Errors
/// A database error.
pub async fn be_brief(conn: &mut MySqlConnection) -> sqlx::Result<()> {
    set_silence(conn, LEASE_LOCK_SILENCE).await
}

/// After it: the session may be idle for as long as any other.
///
/// # Errors
/// A database error.
pub async fn be_patient(conn: &mut MySqlConnection) -> sqlx::Result<()> {
    set_silence(conn, SESSION_SILENCE).await
}

async fn set_silence(conn: &mut MySqlConnection, silence: Duration) -> sqlx::Result<()> {
    let sql = format!(
        "/* set_silence */ SET SESSION wait_timeout = {}",
        silence.as_secs()
    );
    conn.execute(AssertSqlSafe(sql)).await?;
    Ok(())
}

/// What a caller can do about a database error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbFailure {
    /// 1062. `key` is `table.index`; `value` is MySQL's rendering of the duplicate, columns joined by `-`.
    Duplicate { key: String, value: String },
    /// 1213 or 1205: roll back and run the whole transaction again. (1205 rolled back only the statement.)
    LockConflict,
    /// The outcome of what was in flight is unknown.
    ConnectionLost,
    /// No connection or no answer was to be had in time, or the server refuses writes: try later.
    Unavailable,
    /// A bug or a broken schema: do not retry.
    Other,
}

impl DbFailure {
    pub fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(cause) => match cause.try_downcast_ref::<MySqlDatabaseError>() {
                Some(mysql) => Self::of_number(mysql.number(), mysql.message()),
                None => Self::Other,
            },
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => {
                Self::ConnectionLost
            }
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Self::Unavailable,
            _ => Self::Other,
        }
    }

    /// Numbers from the MySQL error reference.
    fn of_number(number: u16, message: &str) -> Self {
        match number {
            1062 => match parse_duplicate(message) {
                Some((value, key)) => Self::Duplicate { key, value },
                None => Self::Other,
            },
            1205 | 1213 | 3572 => Self::LockConflict,
            // Killed query or connection, shutdown in progress, server gone, idle session cut.
            1053 | 1317 | 1927 | 2006 | 2013 | 3169 | 4031 => Self::ConnectionLost,
            // Too many connections, read-only server, a statement's own time limit.
            1040 | 1203 | 1290 | 1792 | 1836 | 3024 => Self::Unavailable,
            _ => Self::Other,
        }
    }

    pub fn is_transient(&self) -> bool {
        match self {
            Self::LockConflict | Self::ConnectionLost | Self::Unavailable => true,
            Self::Duplicate { .. } | Self::Other => false,
        }
    }
}

/// Reads `Duplicate entry 'VALUE' for key 'TABLE.INDEX'`.
fn parse_duplicate(message: &str) -> Option<(String, String)> {
    let rest = message.strip_prefix("Duplicate entry '")?;
    let (value, key) = rest.rsplit_once("' for key '")?;
    Some((value.to_owned(), key.strip_suffix('\'')?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_is_known_by_its_key() {
        assert_eq!(
            DbFailure::of_number(
                1062,
                "Duplicate entry 'a' for key 'b-7' for key 'returns.one_open_return_per_order'"
            ),
            DbFailure::Duplicate {
                key: "returns.one_open_return_per_order".to_owned(),
                value: "a' for key 'b-7".to_owned()
            }
        );
    }

    #[test]
    fn debug_hides_the_password() {
        let args = DbArgs {
            database_url: "mysql://root:s3cret@localhost/returns".into(),
            database_max_connections: 1,
        };
        assert!(!format!("{args:?}").contains("s3cret"));
    }

    #[test]
    fn a_bad_url_is_told_without_repeating_it() {
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
