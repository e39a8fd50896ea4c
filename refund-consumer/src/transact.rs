//! The one way to write: a transaction that runs again until it commits.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use prometheus::IntCounter;
use shared::runtime::db::{Database, Retry, TransactionError};
use shared::runtime::tasks::{Backoff, Outage};
use sqlx::MySqlConnection;

use crate::error::Error;

/// For one run. A full batch takes about 0.2 s; a lock wait of a table ends after 10 s.
const DEADLINE: Duration = Duration::from_secs(10);
/// Conflicts pass within milliseconds; during an outage one try a second is enough.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(5),
    cap: Duration::from_secs(1),
};

/// What is written, where, and where its failures are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transaction<'a> {
    pub(crate) db: &'a Database,
    pub(crate) name: &'static str,
    /// Transient failures.
    pub(crate) failures: &'a IntCounter,
}

impl Transaction<'_> {
    /// Runs `body` until it commits or fails for good, or until `give_up` ends it after a transient failure and this
    /// many tries. After a lost COMMIT the whole body runs again: it must find what the first run committed.
    /// Cancel-safe.
    ///
    /// # Errors
    /// The last error; it is transient only if `give_up` ended it.
    pub(crate) async fn until_committed<T, B>(
        self,
        give_up: impl Fn(&Error, u32) -> bool,
        body: B,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        B: for<'c> Fn(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, Error>>
            + Send
            + Sync
            + 'static,
    {
        let body = Arc::new(body);
        let (mut tries, mut outage) = (0, Outage::new(self.name));
        loop {
            let body = Arc::clone(&body);
            let run = self
                .db
                .transaction(self.name, DEADLINE, Retry::NEVER, move |conn| body(conn));
            let error = match run.await {
                Ok(value) => {
                    outage.ended();
                    return Ok(value);
                }
                Err(TransactionError::Conflict(error) | TransactionError::Refused(error)) => error,
                Err(TransactionError::CommitUnknown { cause, .. }) => cause.into(),
            };
            if !error.is_transient() || give_up(&error, tries) {
                return Err(error);
            }
            self.failures.inc();
            outage.failed(&error);
            tokio::time::sleep(BACKOFF.pause(tries)).await;
            tries += 1;
        }
    }
}
