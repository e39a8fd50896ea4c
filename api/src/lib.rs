//! The customers' HTTP API: a return and its event are written in one MySQL transaction; Kafka is never involved.
//!
//! Must stay true: a 201 is sent only for a committed row (or one that is found after the response to COMMIT was lost);
//! every transaction runs in a task of its own, so a client that disconnects cannot cancel it half way. Modules import
//! in one direction: `store` <- features <- `http` <- `app`.

mod app;
pub mod config;

mod http;

mod audit;
pub mod auth;
mod backlog;
mod decisions;
mod filing;
mod idempotency;
mod notifications;
mod streams;
mod unclaimed;

mod store;

mod error;
pub mod metrics;
mod open_files;
mod quota;

#[cfg(test)]
mod docs_copy;

pub use self::app::{App, StartError, run};
