//! The real library on real MySQL and real Kafka; a fake stands only behind `RefundGateway`.

mod harness;

mod accounts;
mod claims;
mod closed;
#[cfg(feature = "failpoints")]
mod crashes;
mod dead_letters;
mod debezium;
mod docs;
mod draining;
mod duplicates;
mod exclusive;
mod fenced;
mod gauges;
mod held;
mod http_gateway;
mod keep_alive;
mod lag;
mod locks;
mod lost_commits;
mod outcomes;
mod pausing;
mod poison;
mod process;
mod reconciling;
mod refunding;
mod refusals;
mod reversals;
mod rivals;
mod scans;
mod shop_sync;
mod silent_mysql;
mod stages;
