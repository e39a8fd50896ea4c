//! What people type.

use clap::{Parser, Subcommand};

use crate::{doctor, healthcheck, migrate, outbox, seed, token, topics};

const EXIT_CODES: &str = "\
Exit codes:
  0   done, or all is well
  1   found a problem; the message says what to do
  2   could not tell, because a server could not be reached
  64  bad usage; every bad setting is listed

Each setting is a flag and a variable; see `returnsctl COMMAND --help`.";

/// Operate the returns system: schema, topics, test orders, tokens, the outbox and a health report.
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
    Doctor(doctor::Args),
    Healthcheck(healthcheck::Args),
}
