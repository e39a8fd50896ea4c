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
pub mod operator;
mod output;
pub mod program;
pub mod prometheus;
pub mod provider;
pub mod refund_chaos;
pub mod secrets;
pub mod stack;
pub mod system;
pub mod topic_check;

use std::net::TcpListener;
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

/// Ports of this machine on which nothing listens now.
///
/// # Errors
/// There are none.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let bound: Result<Vec<TcpListener>, _> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect();
    bound?
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}
