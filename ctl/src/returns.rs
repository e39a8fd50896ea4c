//! `returnsctl returns`: every return, also those without a refund. Both commands only read.

mod list;
mod show;

use std::process::ExitCode;

use clap::Subcommand;

use crate::error::CtlError;

/// See returns: those in a state, those that wait for a review, and those that should have moved.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: ReturnsCommand,
}

#[derive(Debug, Subcommand)]
enum ReturnsCommand {
    List(list::Args),
    Show(show::Args),
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    match args.command {
        ReturnsCommand::List(args) => list::run(args).await,
        ReturnsCommand::Show(args) => show::run(args).await,
    }
}
