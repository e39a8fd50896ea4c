//! The built `returnsctl`, run as people run it, on real MySQL and real Kafka.

mod harness;

mod cli;
mod dead_letters;
mod doctor;
mod migrate;
mod named_commands;
mod outbox;
mod refunds;
mod returns;
mod seed;
mod status;
mod token;
mod top;
mod topics;
mod trace;
