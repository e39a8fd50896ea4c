//! The built `returnsctl`, run as people run it, on real MySQL and real Kafka.

mod harness;

mod cli;
mod dead_letters;
mod doctor;
mod migrate;
mod outbox;
mod refunds;
mod seed;
mod token;
mod topics;
