//! `returnsctl refunds`: decisions of persons about refunds. Reading locks nothing.
//!
//! Must stay true: a person who changes something has a verified token, is an admin and not the return's own customer. The
//! decision is checked on locked rows and written by `shared::domain::transition` like every other change. It adds one
//! row to `operator_actions`, in the same transaction. No money moves here: the consumer carries out a retry, and marking
//! a refund records what people found out elsewhere.

mod answer;
mod confirm_mark;
mod list;
mod overdue;
mod park;
mod request_mark;
mod retry;
mod show;

mod decision;
mod mark;
mod refund;
mod request;

use std::process::ExitCode;

use clap::Subcommand;

use crate::error::CtlError;

const HELP: &str = "\
Exit codes, beside the usual ones:
  1   the return or attempt is not there, or its state, your role or another person's step does not allow this; nothing \
was changed, and the message says why
  2   MySQL cannot be reached or is busy; or the response to COMMIT was lost, and the message says how to find out what \
happened

list and show only read. The others need a bearer token with the role admin, of a person whose own return it is not, and \
add a row to the table operator_actions. Marking as paid or as not paid takes two persons: one requests, another confirms.";

/// See refunds that wait for a person, and decide: retry, or mark as paid or not paid.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: RefundsCommand,
}

#[derive(Debug, Subcommand)]
enum RefundsCommand {
    List(list::Args),
    Show(show::Args),
    Retry(retry::Args),
    Park(park::Args),
    RequestMarkPaid(request_mark::PaidArgs),
    ConfirmMarkPaid(confirm_mark::PaidArgs),
    RequestMarkNotPaid(request_mark::NotPaidArgs),
    ConfirmMarkNotPaid(confirm_mark::NotPaidArgs),
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    match args.command {
        RefundsCommand::List(args) => list::run(args).await,
        RefundsCommand::Show(args) => show::run(args).await,
        RefundsCommand::Retry(args) => retry::run(args).await,
        RefundsCommand::Park(args) => park::run(args).await,
        RefundsCommand::RequestMarkPaid(args) => request_mark::paid(args).await,
        RefundsCommand::ConfirmMarkPaid(args) => confirm_mark::paid(args).await,
        RefundsCommand::RequestMarkNotPaid(args) => request_mark::not_paid(args).await,
        RefundsCommand::ConfirmMarkNotPaid(args) => confirm_mark::not_paid(args).await,
    }
}
