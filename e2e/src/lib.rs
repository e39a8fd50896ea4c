//! The whole system as its users have it: the built binaries, real MySQL, real Kafka, real sockets.
//!
//! Holds no product code. The demo and the whole-system tests share it.

pub mod chaos;
pub mod checks;
pub mod client;
pub mod contract;
pub mod kafka_log;
pub mod ledger;
pub mod load;
mod output;
pub mod paying;
pub mod program;
pub mod provider;
pub mod secrets;
pub mod stack;
pub mod system;
pub mod verdict;

use std::time::Duration;

/// Polls `condition` until it holds.
///
/// # Errors
/// It did not within `deadline`; the message is `what`.
pub async fn until(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let end = tokio::time::Instant::now() + deadline;
    while !condition().await? {
        anyhow::ensure!(
            tokio::time::Instant::now() < end,
            "not within {deadline:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
