//! The relay with a real MySQL and a real Kafka. Each test has its own database and topics.

mod harness;

mod crash;
mod cuts;
mod delivery;
mod docs;
mod frozen;
mod leases;
mod order;
mod outage;
mod overload;
mod parking;
mod partitions;
mod program;
mod redrive;
mod spans;
mod suspended;
mod troubled_topics;
