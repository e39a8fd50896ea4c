//! `returnsctl dead-letters`: Kafka records that the refund consumer could not use, kept byte for byte (P10). Looking
//! changes nothing; whoever sends one again or removes it is recorded in `operator_actions`.

mod discard;
mod list;
mod redrive;
mod show;

mod letter;
mod postman;

use std::process::ExitCode;

use clap::Subcommand;

use crate::error::CtlError;

const HELP: &str = "\
Exit codes, beside the usual ones:
  1   no such dead letter, or one that cannot be sent again as it was; redrive: the rest was sent

list and show only read. redrive and discard need --by and --reason, and leave one row per record in the table
operator_actions.";

/// See the records that could not be used, send them again, or remove them.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    List(list::Args),
    Show(show::Args),
    Redrive(redrive::Args),
    Discard(discard::Args),
}

pub(crate) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    match &args.command {
        DeadLettersCommand::List(args) => list::run(args).await,
        DeadLettersCommand::Show(args) => show::run(args).await,
        DeadLettersCommand::Redrive(args) => redrive::run(args).await,
        DeadLettersCommand::Discard(args) => discard::run(args).await,
    }
}
