//! All SQL of this crate.

pub(crate) mod actions;
pub(crate) mod amounts;
pub(crate) mod dead_letters;
pub(crate) mod findings;
pub(crate) mod leases;
pub(crate) mod orders;
pub(crate) mod outbox;
pub(crate) mod parked;
pub(crate) mod queues;
pub(crate) mod refunds;
pub(crate) mod returns;
pub(crate) mod server;
pub(crate) mod shards;
pub(crate) mod tokens;
pub(crate) mod trace;
pub(crate) mod trails;

#[cfg(test)]
mod explain;
