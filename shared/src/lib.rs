//! Code that at least two of the programs use, on three floors.
//!
//! [`domain`] holds the rules: ids, money, states, eligibility, messages, refunds, and `transition`, the only code that
//! changes a return. [`runtime`] holds the parts of every program: MySQL, Kafka, settings, logs, metrics, start and stop.
//! `auth` verifies tokens and decides about requests. `domain` imports neither of the others (`tests/it/layout.rs`).
//!
//! There are no endpoints here, and no queries except those of `transition`, the schema check and the readiness ping.

pub mod domain;

pub mod runtime;

#[cfg(feature = "auth")]
pub mod auth;

#[cfg(feature = "test-support")]
pub mod test_support;
