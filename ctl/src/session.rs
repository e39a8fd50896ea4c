//! The one connection of a command, and what runs on it: named reads and transactions, each with a deadline.

use std::time::Duration;

use futures_util::future::BoxFuture;
use shared::runtime::db::{Database, DbArgs, DbError, Retry, TransactionError, server_of};
use shared::runtime::schema::{self, SchemaError};
use shared::runtime::tasks::Backoff;
use sqlx::Connection;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};

use crate::error::CtlError;

/// A server that is stopped or behind a silent firewall would hold a connect for minutes.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Above the longest count: about a second for each million rows.
pub(crate) const READ_DEADLINE: Duration = Duration::from_secs(60);
/// Of one check of `doctor`, which must stay quick.
pub(crate) const CHECK_DEADLINE: Duration = Duration::from_secs(10);
/// Above two lock waits of 5 s in one run of a transaction.
const TRANSACTION_DEADLINE: Duration = Duration::from_secs(30);
/// Other sessions hold what we lock for milliseconds.
const RETRY: Retry = Retry {
    tries: 5,
    backoff: Backoff {
        base: Duration::from_millis(50),
        cap: Duration::from_secs(1),
    },
};

// No doc comment: clap would show it as the text of every command that flattens this.
#[derive(Debug, Clone, clap::Args)]
#[command(mut_arg("database_max_connections", |arg| arg.hide(true)))]
pub(crate) struct SessionArgs {
    #[command(flatten)]
    db: DbArgs,

    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

impl SessionArgs {
    /// Connects to a database that has the schema of this build.
    pub(crate) async fn connect(&self) -> Result<Session, CtlError> {
        let session = Session::open(&self.db, 1).await?;
        session.check_schema().await?;
        Ok(session)
    }
}

/// MySQL, as a command uses it.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    db: Database,
    /// Host and port, for messages.
    server: String,
}

impl Session {
    /// # Errors
    /// The URL is bad, the database does not exist, or the server does not respond within five seconds.
    pub(crate) async fn open(args: &DbArgs, connections: u32) -> Result<Self, CtlError> {
        let options = options(args)?;
        let session = Self {
            server: server_of(&options),
            db: Database::unmetered(options, connections),
        };
        session
            .run("connect", CONNECT_DEADLINE, |conn| Box::pin(conn.ping()))
            .await?;
        Ok(session)
    }

    /// # Errors
    /// The database does not have the schema of this build.
    pub(crate) async fn check_schema(&self) -> Result<(), CtlError> {
        let checked = self.schema().await.map_err(CtlError::from);
        checked.map_err(|error| error.at(&self.server))
    }

    /// As [`Self::check_schema`], with the reason as a type.
    pub(crate) async fn schema(&self) -> Result<(), SchemaError> {
        schema::check(&self.db).await
    }

    /// Runs statements that change nothing.
    pub(crate) async fn read<T, W>(&self, name: &'static str, work: W) -> Result<T, CtlError>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + 'static,
    {
        self.run(name, READ_DEADLINE, work).await
    }

    /// As [`Self::read`], for a check that must be quick.
    pub(crate) async fn check<T, W>(&self, name: &'static str, work: W) -> Result<T, CtlError>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + 'static,
    {
        self.run(name, CHECK_DEADLINE, work).await
    }

    /// Runs `body` in a transaction, again after a lock conflict. Its error rolls back.
    pub(crate) async fn transaction<T, B>(&self, name: &'static str, body: B) -> Result<T, CtlError>
    where
        T: Send + 'static,
        B: for<'c> Fn(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, CtlError>>
            + Send
            + Sync
            + 'static,
    {
        self.transaction_or(name, body, unclear).await
    }

    /// As [`Self::transaction`]; `unknown` says what it means that the response to COMMIT was lost.
    pub(crate) async fn transaction_or<T, B>(
        &self,
        name: &'static str,
        body: B,
        unknown: impl FnOnce(DbError) -> CtlError,
    ) -> Result<T, CtlError>
    where
        T: Send + 'static,
        B: for<'c> Fn(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, CtlError>>
            + Send
            + Sync
            + 'static,
    {
        let outcome = self.db.transaction(name, TRANSACTION_DEADLINE, RETRY, body);
        let outcome = outcome.await.map_err(|error| match error {
            TransactionError::Conflict(error) | TransactionError::Refused(error) => error,
            TransactionError::CommitUnknown { cause, .. } => unknown(cause),
        });
        outcome.map_err(|error| error.at(&self.server))
    }

    /// Runs statements that change nothing, within a deadline of the caller.
    pub(crate) async fn run<T, W>(
        &self,
        name: &'static str,
        deadline: Duration,
        work: W,
    ) -> Result<T, CtlError>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + 'static,
    {
        let done: Result<T, DbError> = self
            .db
            .run(name, deadline, |conn| {
                Box::pin(async move { Ok(work(conn).await?) })
            })
            .await;
        done.map_err(|error| CtlError::from(error).at(&self.server))
    }
}

/// What most commands say when the response to COMMIT was lost.
fn unclear(cause: DbError) -> CtlError {
    CtlError::Unclear {
        problem: "the response to COMMIT was lost: the change may have been carried out.\n\
                  To do: look whether it was, before you run the command again"
            .to_owned(),
        source: Box::new(cause),
    }
}

/// The connection options of a server that responds, for work that connects by itself.
///
/// # Errors
/// As [`Session::open`].
pub(crate) async fn reach(args: &DbArgs) -> Result<MySqlConnectOptions, CtlError> {
    let session = Session::open(args, 1).await?;
    session.db.close().await;
    options(args)
}

fn options(args: &DbArgs) -> Result<MySqlConnectOptions, CtlError> {
    args.options()
        .map_err(|problem| CtlError::Usage(vec![problem]))
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use shared::domain::ids::CustomerId;
    use shared::test_support::TestDb;
    use sqlx::mysql::MySqlPool;

    use super::*;

    async fn take(conn: &mut MySqlConnection, order: i64) -> sqlx::Result<()> {
        let sql = "SELECT 1 FROM orders WHERE id = ? FOR UPDATE NOWAIT";
        sqlx::query(sql).bind(order).execute(conn).await?;
        Ok(())
    }

    async fn is_free(pool: &MySqlPool, order: i64) -> bool {
        let mut tx = pool.begin().await.expect("begin");
        let taken = take(&mut tx, order).await;
        tx.rollback().await.expect("rollback");
        taken.is_ok()
    }

    /// Locks order 1, then loses order 2, which another session holds.
    #[tokio::test]
    async fn a_lost_transaction_holds_nothing_while_it_waits_and_ends_as_busy() {
        let db = TestDb::create().await;
        db.seed_orders(1, 2, CustomerId(42)).await;
        let mut other = db.pool.begin().await.expect("begin");
        take(&mut other, 2).await.expect("free");
        let args = DbArgs {
            database_url: db.url().into(),
            database_max_connections: 1,
        };
        let session = Session::open(&args, 1).await.expect("a session");
        let (runs, pool) = (Arc::new(AtomicU32::new(0)), db.pool.clone());
        let counter = Arc::clone(&runs);
        let outcome = session
            .transaction("lose", move |conn| {
                let (runs, pool) = (Arc::clone(&counter), pool.clone());
                Box::pin(async move {
                    assert!(is_free(&pool, 1).await, "held while it waited");
                    runs.fetch_add(1, Ordering::Relaxed);
                    take(conn, 1).await?;
                    Ok(take(conn, 2).await?)
                })
            })
            .await;
        let error = outcome.expect_err("order 2 is never free");
        assert_eq!(
            (error.code(), error.exit_code()),
            ("busy", ExitCode::from(2))
        );
        assert!(
            error.report().contains("run it again"),
            "{}",
            error.report()
        );
        assert_eq!(runs.load(Ordering::Relaxed), RETRY.tries);
    }
}
