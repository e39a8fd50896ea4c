//! The relay on a real MySQL and a real Kafka: one database and one topic set per test.

mod harness;

mod crash;
mod delivery;
mod leases;
mod order;
mod outage;
mod parking;
mod program;
