//! `returnsctl token`: keys and bearer tokens, of both formats.

mod attenuate;
mod inspect;
mod keygen;
mod mint;
mod retire;
mod revoke;

mod args;
mod ttl;

use std::process::ExitCode;

use clap::Subcommand;

use crate::error::CtlError;

/// Make, read, narrow and revoke bearer tokens, and make the keys that sign them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Mint(mint::Args),
    Inspect(inspect::Args),
    Attenuate(attenuate::Args),
    Revoke(revoke::Args),
    Keygen(keygen::Args),
    Retire(retire::Args),
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    match args.command {
        TokenCommand::Mint(args) => mint::run(args),
        TokenCommand::Inspect(args) => inspect::run(args),
        TokenCommand::Attenuate(args) => attenuate::run(args),
        TokenCommand::Revoke(args) => revoke::run(args).await,
        TokenCommand::Keygen(args) => keygen::run(args),
        TokenCommand::Retire(args) => retire::run(args),
    }
}
