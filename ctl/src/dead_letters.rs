//! `returnsctl dead-letters`: Kafka records that the refund consumer could not use, kept byte for byte (P10). Reading
//! changes nothing. A person who sends a record again or removes it is recorded in `operator_actions`.

mod discard;
mod list;
mod redrive;
mod show;

mod record;
mod sender;

use std::process::ExitCode;

use clap::Subcommand;

use crate::error::CtlError;

const HELP: &str = "\
Exit codes, beside the usual ones:
  1   there is no such dead letter, or it cannot be sent again as it was; redrive: the others were sent

list and show only read. redrive and discard need --by and --reason, and add one row per record to the table \
operator_actions.";

/// See the records that the refund consumer could not use, send them again, or remove them.
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

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    match args.command {
        DeadLettersCommand::List(args) => list::run(args).await,
        DeadLettersCommand::Show(args) => show::run(args).await,
        DeadLettersCommand::Redrive(args) => redrive::run(args).await,
        DeadLettersCommand::Discard(args) => discard::run(args).await,
    }
}
