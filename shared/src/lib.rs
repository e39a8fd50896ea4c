//! What at least two of the programs use: domain rules, the one writer of a return's change, and plumbing.
//!
//! What may live here: ids, money, states, eligibility (pure), who is asking, the messages and how dead letters keep
//! theirs, `transition` with the two tables it appends to, and the settings, logging and operator endpoints that every
//! program has.
//! What may not: endpoints, and queries other than those of `transition`, the schema check and the readiness ping.

pub mod ids;
pub mod money;
pub mod status;

pub mod actor;
pub mod attempt;
#[cfg(feature = "auth")]
pub mod auth;
pub mod eligibility;
pub mod trace_context;

pub mod dead_letter;
pub mod event;
pub mod transition;

pub mod audit;
pub mod outbox;

mod bulk;
pub mod db;
pub mod hex;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod retry;
pub mod schema;

pub mod settings;

pub mod http_server;
pub mod ops;
pub mod shutdown;
pub mod telemetry;

pub mod killpoint;
#[cfg(feature = "test-support")]
pub mod test_support;
