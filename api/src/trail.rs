//! What reading the audit trail may take of this process: a part of the pool, and so many exports at once.
//!
//! Must stay true: however broad an auditor's filters are, customers' requests find free connections (P12).

use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::MySqlPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::ApiError;
use crate::reading;

/// Exports under way at once. Each holds a connection of its client, and a chunk of some 400 KB while that does not read.
const EXPORTS: usize = 16;

/// What a reading may take: its statement's own limit, and waits for others and for a connection. No deadline of the
/// server covers an export.
const DEADLINE: Duration = Duration::from_secs(30);

/// The auditors' way to the database.
#[derive(Debug, Clone)]
pub struct Trail {
    pool: MySqlPool,
    /// A quarter of the pool.
    reads: Arc<Semaphore>,
    exports: Arc<Semaphore>,
}

impl Trail {
    pub(crate) fn new(pool: MySqlPool) -> Self {
        let connections = pool.options().get_max_connections();
        let quarter = usize::try_from(connections / 4).unwrap_or(1).max(1);
        Self {
            pool,
            reads: Arc::new(Semaphore::new(quarter)),
            exports: Arc::new(Semaphore::new(EXPORTS)),
        }
    }

    pub(crate) fn pool(&self) -> &MySqlPool {
        &self.pool
    }

    /// The right to one export, for as long as it is held.
    ///
    /// # Errors
    /// [`ApiError::TooManyExports`].
    pub(crate) fn begin_export(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let permit = Arc::clone(&self.exports).try_acquire_owned();
        permit.map_err(|_| ApiError::TooManyExports)
    }

    /// Runs `work` once it is its turn, to its end. Errors are logged here.
    pub(crate) fn read<T, F>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T, ApiError>> + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = sqlx::Result<T>> + Send + 'static,
    {
        let reads = Arc::clone(&self.reads);
        let read = reading::to_its_end(async move {
            let _turn = reads.acquire_owned().await.expect("never closed");
            work.await
        });
        async move {
            timeout(DEADLINE, read).await.unwrap_or_else(|_| {
                tracing::warn!("the audit trail was not read in time");
                Err(ApiError::Unavailable)
            })
        }
    }
}
