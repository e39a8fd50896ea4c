//! The api as a library on real MySQL: one database per test, real sockets, real tokens.

mod harness;

mod authentication;
mod backpressure;
mod bad_input;
mod concurrency;
mod filing;
mod idempotency;
mod lost_connection;
mod operations;
mod reading;
