//! `returnsctl outbox`: the operator's side of the relay. Reading changes nothing and locks nothing. Every command that
//! changes something records who did it and why in `operator_actions`, in the same transaction.

mod discard;
mod move_topic;
mod park;
mod parked;
mod pause;
mod peek;
mod redrive;
mod stats;
mod topics;

mod by_topic;
mod shard;

use std::process::ExitCode;

use clap::Subcommand;

use crate::error::CtlError;

const HELP: &str = "\
Exit codes, beside the usual ones:
  1   the event, order or topic that you named is not there, or has nothing parked

stats, topics, peek and parked only read. All others need --by and --reason, and add one row per event or shard to the \
table operator_actions.";

/// Inspect and operate the outbox: waiting rows, parked rows, and which relay publishes which shard.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: OutboxCommand,
}

#[derive(Debug, Subcommand)]
enum OutboxCommand {
    Stats(stats::Args),
    Topics(topics::Args),
    Peek(peek::Args),
    Parked(parked::Args),
    Park(park::Args),
    Move(move_topic::Args),
    Redrive(redrive::Args),
    Discard(discard::Args),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    match args.command {
        OutboxCommand::Stats(args) => stats::run(args).await,
        OutboxCommand::Topics(args) => topics::run(args).await,
        OutboxCommand::Peek(args) => peek::run(args).await,
        OutboxCommand::Parked(args) => parked::run(args).await,
        OutboxCommand::Park(args) => park::run(args).await,
        OutboxCommand::Move(args) => move_topic::run(args).await,
        OutboxCommand::Redrive(args) => redrive::run(args).await,
        OutboxCommand::Discard(args) => discard::run(args).await,
        OutboxCommand::Pause(args) => pause::pause(args).await,
        OutboxCommand::Resume(args) => pause::resume(args).await,
    }
}
