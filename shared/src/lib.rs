//! What at least two of the programs use, on three floors.
//!
//! [`domain`] holds the rules: ids, money, states, eligibility, messages, and `transition`, the one writer of a return's
//! change. [`runtime`] holds how every program is built: MySQL, Kafka, settings, logs, metrics, start and stop. `auth`
//! decides about callers. `domain` imports neither of the others (`deploy/check-layout.sh`).
//!
//! No endpoints live here, and no queries except those of `transition`, the schema check and the readiness ping.

pub mod domain;

pub mod runtime;

#[cfg(feature = "auth")]
pub mod auth;

#[cfg(feature = "test-support")]
pub mod test_support;
