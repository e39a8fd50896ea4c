//! The api as a library on real MySQL: one database per test, real sockets, real tokens.

mod harness;
mod tokens;

mod authentication;
mod matrix;

mod concurrent_callers;
mod hostile;
mod key_rotation;
mod mutations;
mod revocation;

mod fuzz;

mod backpressure;
mod bad_input;
mod concurrency;
mod filing;
mod idempotency;
mod lost_connection;
mod operations;
mod reading;
