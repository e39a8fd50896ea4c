//! The whole system as its users see it: the built binaries, real MySQL, real Kafka, real sockets.
//!
//! The demo and the whole-system tests share this crate. It contains no product code.

pub mod chaos;
pub mod checks;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod contract;
pub mod ledger;
pub mod load;
mod output;
pub mod program;
pub mod provider;
pub mod refund_chaos;
pub mod secrets;
pub mod stack;
pub mod system;
pub mod topic_check;

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
