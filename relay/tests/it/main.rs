//! The relay on a real MySQL and a real Kafka: one database and one topic set per test.

mod harness;

mod crash;
mod cuts;
mod delivery;
mod frozen;
mod leases;
mod order;
mod outage;
mod overload;
mod parking;
mod program;
mod redrive;
