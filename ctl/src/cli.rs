//! What people type.

use clap::{Parser, Subcommand};

use crate::{
    dead_letters, dev_gateway, doctor, healthcheck, migrate, outbox, refunds, seed, token, topics,
};

const EXIT_CODES: &str = "\
Exit codes:
  0   done, or all is well
  1   found a problem; the message says what to do
  2   could not tell, because a server could not be reached
  64  bad usage; every bad setting is listed

Each setting is a flag and a variable; see `returnsctl COMMAND --help`.";

/// Operate the returns system: schema, topics, test orders, tokens, the outbox, refunds that wait for a person, dead
/// letters and a health report.
#[derive(Debug, Parser)]
#[command(name = "returnsctl", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Migrate(migrate::Args),
    Topics(topics::Args),
    Seed(seed::Args),
    Token(token::Args),
    Outbox(outbox::Args),
    Refunds(refunds::Args),
    DeadLetters(dead_letters::Args),
    DevGateway(dev_gateway::Args),
    Doctor(doctor::Args),
    Healthcheck(healthcheck::Args),
}
