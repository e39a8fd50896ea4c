//! How every program is built: one way each to use MySQL and Kafka, to read settings, to log, to count, to start and to
//! stop.

pub mod program;
pub mod settings;
pub mod tasks;

pub mod clock;
pub mod metrics;
pub mod telemetry;
pub mod trace;

pub mod db;
pub mod schema;

#[cfg(feature = "kafka")]
pub mod kafka;

pub mod http_server;
pub mod ops;

pub mod shutdown;

pub mod killpoint;
