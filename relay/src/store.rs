//! Every SQL statement of the relay.
//!
//! A statement on several rows must not lock any other row. So each of them forces the primary key: with statistics
//! taken while the table was empty, MySQL turns an id list into a scan, which waits for uncommitted inserts.

pub mod backlog;
pub mod lease;
pub mod outbox;
pub mod parking;
