//! `returnsctl outbox`: the operator's side of the relay. Looking changes nothing and locks nothing; every command
//! that changes something says who did it and why in `operator_actions`, in the same transaction.

mod discard;
mod parked;
mod pause;
mod peek;
mod redrive;
mod stats;

use std::process::ExitCode;

use clap::Subcommand;
use shared::domain::ids::Shard;

use crate::error::CtlError;

const HELP: &str = "\
Exit codes, beside the usual ones:
  1   what was named is not there: no such event or order, or nothing parked for it

stats, peek and parked only read. redrive, discard, pause and resume need --by and --reason, and leave one row per
event or shard in the table operator_actions.";

/// Look into the outbox, and operate it: what waits, what is parked, who publishes which shard.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: OutboxCommand,
}

#[derive(Debug, Subcommand)]
enum OutboxCommand {
    Stats(stats::Args),
    Peek(peek::Args),
    Parked(parked::Args),
    Redrive(redrive::Args),
    Discard(discard::Args),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
}

pub(crate) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    match &args.command {
        OutboxCommand::Stats(args) => stats::run(args).await,
        OutboxCommand::Peek(args) => peek::run(args).await,
        OutboxCommand::Parked(args) => parked::run(args).await,
        OutboxCommand::Redrive(args) => redrive::run(args).await,
        OutboxCommand::Discard(args) => discard::run(args).await,
        OutboxCommand::Pause(args) => pause::pause(args).await,
        OutboxCommand::Resume(args) => pause::resume(args).await,
    }
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    let number: u8 = text.parse().map_err(|_| no_shard())?;
    Shard::all()
        .find(|shard| shard.0 == number)
        .ok_or_else(no_shard)
}

fn no_shard() -> String {
    format!("must be a shard, 0 to {}", Shard::COUNT - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_one_of_the_sixteen() {
        assert_eq!(parse_shard("15"), Ok(Shard(15)));
        for text in ["16", "-1", "", "x", "256"] {
            assert_eq!(
                parse_shard(text),
                Err("must be a shard, 0 to 15".to_owned()),
                "{text}"
            );
        }
    }
}
