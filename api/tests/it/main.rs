//! The api as a library on real MySQL: one database per test, real sockets, real tokens.

mod audit_rows;
mod docs;
mod harness;
mod logs;
mod moves;
mod page_cost;
mod tokens;
mod trails;
mod wire;

mod authentication;
mod matrix;

mod concurrent_callers;
mod hostile;
mod key_rotation;
mod mutations;
mod notifications;
mod revocation;

mod fuzz;

mod backlog;
mod backpressure;
mod bad_input;
mod bulkheads;
mod concurrency;
mod contract;
mod currencies;
mod decisions;
mod events;
mod export;
mod export_ends;
mod filing;
mod head;
mod idempotency;
mod lost_connection;
mod on_behalf;
mod operations;
mod operator_actions;
mod orders;
mod own_returns;
mod reading;
mod shop_sync;
mod strangers;
mod unclaimed;

mod issuers;
mod limits;
mod owner_limits;
mod proxies;
mod raw_http;
mod slow_clients;
mod stream;
