//! Reading the database in the background, with an end to it.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Why something was not read from the database. Nothing is to be done: it is measured again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("database")]
    Database(#[from] sqlx::Error),
    #[error("no answer from MySQL within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the reading panicked")]
    Panicked,
}

/// Runs `work` in a task of its own, because a sqlx future must not be dropped half way, and waits for it until the
/// deadline. Cancel-safe: what runs is aborted with its connection, which nobody else may use.
pub(crate) async fn in_time<T: Send + 'static>(
    deadline: Duration,
    work: impl Future<Output = sqlx::Result<T>> + Send + 'static,
) -> Result<T, ReadError> {
    let task = AbortOnDropHandle::new(tokio::spawn(work));
    match timeout(deadline, task).await {
        Ok(Ok(done)) => Ok(done?),
        Ok(Err(_)) => Err(ReadError::Panicked),
        Err(_) => Err(ReadError::Silent(deadline)),
    }
}
