//! For tests: a migrated database with orders to return, waiting for a condition, the checks of what must hold at the end,
//! Kafka topics, and a proxy that breaks connections to MySQL.

pub mod audit_trail;
pub mod clock_shifts;
mod database;
pub mod docs;
pub mod mysql_proxy;
#[cfg(feature = "kafka")]
pub mod topic_order;
#[cfg(feature = "kafka")]
pub mod topics;
mod wait;

pub use database::{TestDb, keep_when_silent};
pub use wait::{Condition, NotInTime, try_until, until};

/// A promise that does not hold; the message begins with its number.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BrokenPromise(pub(crate) String);

/// A required variable of the test environment.
///
/// # Panics
/// It is not set.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where tests read the environment"
)]
pub fn env(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with `make test`"))
}
