//! Ways to the database for what requests ask: each is a part of the pool, and each use of a connection has an end.
//!
//! Must stay true: a client that hangs up drops no query half way, and whoever gives up in the line leaves nothing in it.
//! No connection is used for longer than its lane allows, also when MySQL has fallen silent: then it is closed, and its
//! place in the pool is free. No lane is the whole pool, so what is slow in one leaves something to the others (P12).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::mysql::{MySqlConnection, MySqlPool};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::error::ApiError;

/// For a turn in a lane that a person waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// For the ping that the pool sends a connection before it takes it back.
const RETURN: Duration = Duration::from_secs(5);

/// A part of the pool.
#[derive(Debug, Clone)]
pub struct Lane {
    pool: MySqlPool,
    turns: Arc<Semaphore>,
    /// How long to wait for a turn.
    patience: Duration,
    /// How long one use of a connection may last.
    held: Duration,
}

/// Why a work was not done, was not done well, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("no turn within {} s", .0.as_secs())]
    NoTurn(Duration),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// Whatever it was about to do may or may not be done.
    #[error("no answer from MySQL within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("it panicked")]
    Panicked,
}

impl Lane {
    /// So many quarters of the pool's connections, but at least one.
    pub(crate) fn quarters(
        quarters: u32,
        pool: &MySqlPool,
        patience: Duration,
        held: Duration,
    ) -> Self {
        let connections = (pool.options().get_max_connections() * quarters / 4).max(1);
        Self {
            pool: pool.clone(),
            turns: Arc::new(Semaphore::new(usize::try_from(connections).unwrap_or(1))),
            patience,
            held,
        }
    }

    /// Lets `work` use a connection, in a task of its own. Cancel-safe: before its turn nothing has begun, and what has
    /// begun is ended whether or not anybody waits for it.
    ///
    /// # Errors
    /// [`Failed`]; what `work` itself says is in its answer.
    pub(crate) async fn run<T, W>(&self, work: W) -> Result<T, Failed>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, T> + Send + Sync + 'static,
    {
        let turn = timeout(self.patience, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn
            .map_err(|_| Failed::NoTurn(self.patience))?
            .expect("never closed");
        let (pool, held) = (self.pool.clone(), self.held);
        let task = tokio::spawn(async move {
            let mut conn = pool.acquire().await?;
            if let Ok(done) = timeout(held, work(&mut conn)).await {
                // By hand: what the pool would do when it is dropped has no end.
                let back = conn.return_to_pool();
                tokio::spawn(async move {
                    let _ = timeout(RETURN, back).await;
                    drop(turn);
                });
                return Ok(done);
            }
            // Half way through something: nobody else may use it. The pool gives it 5 s to say goodbye.
            conn.close_on_drop();
            Err(Failed::Silent(held))
        });
        task.await.unwrap_or(Err(Failed::Panicked))
    }

    /// As [`Lane::run`], for a work whose errors are the database's.
    ///
    /// # Errors
    /// [`Failed`], of the work as well.
    pub(crate) async fn query<T, W>(&self, work: W) -> Result<T, Failed>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + Sync
            + 'static,
    {
        Ok(self.run(work).await??)
    }
}

/// Logged here.
impl From<Failed> for ApiError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Database(error) => Self::from_database(&error),
            Failed::NoTurn(_) | Failed::Silent(_) => {
                tracing::warn!(error = %failed, "a request's use of the database failed");
                Self::Unavailable
            }
            Failed::Panicked => {
                tracing::error!("a request's use of the database panicked");
                Self::Internal
            }
        }
    }
}
