//! The connection of a command that works on a database with a schema, and its transactions.

use std::error::Error;
use std::iter::successors;
use std::time::Duration;

use shared::runtime::db::{self, DbArgs, DbFailure};
use shared::runtime::retry::full_jitter;
use shared::runtime::schema;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use crate::error::CtlError;
use crate::server;

// No doc comment: clap would take it for the text of every command that flattens this.
#[derive(Debug, clap::Args)]
#[command(mut_arg("database_max_connections", |arg| arg.hide(true)))]
pub(crate) struct SessionArgs {
    #[command(flatten)]
    db: DbArgs,

    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

impl SessionArgs {
    /// A connection to a database that has the schema of this build. The server ends it soon if we fall silent.
    pub(crate) async fn connect(&self) -> Result<MySqlConnection, CtlError> {
        let options = server::reach(&self.db).await?;
        let pool = self
            .db
            .pool()
            .map_err(|problem| CtlError::Usage(vec![problem]))?;
        let checked = schema::check(&db::Database::unmetered(options.clone(), 1)).await;
        pool.close().await;
        checked?;
        let mut conn = db::connect(&options).await?;
        db::shorten_idle_timeout(&mut conn).await?;
        Ok(conn)
    }
}

/// How often a transaction is run that loses a lock conflict; others hold what we lock for milliseconds.
const ATTEMPTS: u32 = 5;

/// Runs a transaction, again after a lock conflict. One that returns an error may simply be dropped.
pub(crate) async fn retried<T, E: Error + 'static>(
    conn: &mut MySqlConnection,
    transaction: impl AsyncFn(&mut MySqlConnection) -> Result<T, E>,
) -> Result<T, E> {
    let mut attempt = 0;
    loop {
        let outcome = transaction(conn).await;
        attempt += 1;
        match &outcome {
            Err(error) if lost_a_lock(error) && attempt < ATTEMPTS => {
                // sqlx only queues the ROLLBACK of a transaction that is dropped, and sends it before the next command:
                // without this one we would sleep on our locks. If the connection is lost, the next run tells.
                let _ = conn.ping().await;
                let pause = full_jitter(attempt, Duration::from_millis(50), Duration::from_secs(1));
                tokio::time::sleep(pause).await;
            }
            Ok(_) | Err(_) => return outcome,
        }
    }
}

/// Whether a lock conflict is the error or among its causes.
fn lost_a_lock(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<sqlx::Error>())
        .any(|error| DbFailure::of(error) == DbFailure::LockConflict)
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;
    use std::sync::atomic::{AtomicU32, Ordering};

    use shared::domain::ids::CustomerId;
    use shared::test_support::TestDb;
    use sqlx::mysql::MySqlPool;

    use super::*;

    /// Locks order 1, then loses order 2, which somebody else holds.
    async fn lose(conn: &mut MySqlConnection) -> Result<(), CtlError> {
        let mut tx = conn.begin().await?;
        take(&mut tx, 1).await?;
        take(&mut tx, 2).await?;
        tx.commit().await?;
        Ok(())
    }

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

    #[tokio::test]
    async fn a_lost_transaction_holds_nothing_while_it_waits_and_ends_as_busy() {
        let db = TestDb::create().await;
        db.seed_orders(1, 2, CustomerId(42)).await;
        let mut other = db.pool.begin().await.expect("begin");
        take(&mut other, 2).await.expect("free");
        let mut conn = db.pool.acquire().await.expect("a connection");
        let runs = AtomicU32::new(0);
        let outcome = retried(&mut conn, async |conn| {
            // Before this connection says anything again.
            assert!(is_free(&db.pool, 1).await, "held while it waited");
            runs.fetch_add(1, Ordering::Relaxed);
            lose(conn).await
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
        assert_eq!(runs.load(Ordering::Relaxed), ATTEMPTS);
    }
}
