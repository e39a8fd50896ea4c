//! One long-lived MySQL connection of one task, with the session rules and a deadline on every unit of work.
//!
//! A sqlx future must not be dropped half way, so the work runs in a task of its own and its handle is timed out; a
//! connection whose work failed or fell silent is thrown away, and the next unit opens a new one.

use std::time::{Duration, Instant};

use shared::runtime::db::connect;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection, MySqlConnection};
use tokio::time::timeout;

use crate::error::StoreError;

/// Below the session's `wait_timeout`: the server never cuts a connection that we still trust.
const TRUSTED_IDLE: Duration = Duration::from_secs(10);

/// A connection that opens when first needed.
#[derive(Debug)]
pub(crate) struct Session {
    options: MySqlConnectOptions,
    deadline: Duration,
    conn: Option<MySqlConnection>,
    used: Instant,
}

impl Session {
    pub(crate) fn new(options: MySqlConnectOptions, deadline: Duration) -> Self {
        Self {
            options,
            deadline,
            conn: None,
            used: Instant::now(),
        }
    }

    /// Runs `work` on the connection, which it hands back with its result.
    ///
    /// # Errors
    /// A database error or no answer by the deadline. The outcome of a write is unknown then.
    pub(crate) async fn run<T, F, R>(&mut self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(MySqlConnection) -> R + Send + 'static,
        R: Future<Output = (MySqlConnection, sqlx::Result<T>)> + Send,
    {
        let held = self
            .conn
            .take()
            .filter(|_| self.used.elapsed() < TRUSTED_IDLE);
        let options = self.options.clone();
        let mut task = tokio::spawn(async move {
            let conn = match held {
                Some(conn) => conn,
                None => connect(&options).await?,
            };
            Ok::<_, sqlx::Error>(work(conn).await)
        });
        let finished = match timeout(self.deadline, &mut task).await {
            Ok(finished) => finished.map_err(|_| StoreError::Panicked)?,
            Err(_) => {
                task.abort();
                return Err(StoreError::Silent(self.deadline));
            }
        };
        let (conn, outcome) = finished?;
        if outcome.is_ok() {
            self.conn = Some(conn);
            self.used = Instant::now();
        }
        Ok(outcome?)
    }

    /// Says good-bye to the server, so that it logs no aborted connection.
    pub(crate) async fn close(self) {
        if let Some(conn) = self.conn {
            // The server ends the session by itself if this fails.
            let _ = timeout(Duration::from_secs(1), conn.close()).await;
        }
    }
}
