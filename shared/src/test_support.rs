//! For tests: a migrated database with orders to return, waiting for a condition, the checks of what must hold at the end,
//! Kafka topics, a proxy that breaks connections to MySQL, and a reader of PromQL.

pub mod audit_trail;
pub mod clock_shifts;
mod database;
pub mod docs;
pub mod mysql_proxy;
pub mod promql;
pub mod spans;
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

/// The duration or size of a test: this variable for the long form, or a default that fits into every run of the suite.
///
/// # Panics
/// The variable is no number.
#[expect(
    clippy::disallowed_methods,
    reason = "the length of a test is no setting of a program"
)]
pub fn long_form(variable: &str, usual: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => usual,
    }
}
