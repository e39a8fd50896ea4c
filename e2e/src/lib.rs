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

use shared::test_support::{Condition, try_until};

/// Waits until `check` returns `true` or `Some`.
///
/// # Errors
/// The first error of `check`, or the deadline passes.
pub async fn until<C: Condition>(
    what: &str,
    deadline: Duration,
    check: impl AsyncFnMut() -> anyhow::Result<C>,
) -> anyhow::Result<C::Value> {
    try_until(what, deadline, check).await
}
