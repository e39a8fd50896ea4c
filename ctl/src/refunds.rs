//! `returnsctl refunds`: the person's side of paying back. Looking locks nothing.
//!
//! Must stay true: whoever changes something is known by a verified token, is an admin and not the return's own
//! customer; what they decide is judged on locked rows and written by `shared::domain::transition` like every other change;
//! each decision leaves one row in `operator_actions`, in the same transaction. Money is never moved here: a retry is
//! carried out by the consumer, and marking records what people found out elsewhere.

mod confirm_mark_paid;
mod list;
mod mark_not_paid;
mod request_mark_paid;
mod retry;
mod show;

mod act;
mod case;
mod request;

use std::process::ExitCode;

use clap::Subcommand;
use shared::domain::ids::ReturnId;

use crate::error::CtlError;

const HELP: &str = "\
Exit codes, beside the usual ones:
  1   what was named is not there, or its state, your role or another person's step does not allow this; nothing was
      changed, and the message says why
  2   MySQL is away or busy; or its answer to COMMIT was lost, and the message says how to find out what became of it

list and show only read. The others need a bearer token of role admin, of somebody whose own return it is not, and
leave a row in the table operator_actions. Marking as paid takes two persons: one requests, another confirms.";

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
    RequestMarkPaid(request_mark_paid::Args),
    ConfirmMarkPaid(confirm_mark_paid::Args),
    MarkNotPaid(mark_not_paid::Args),
}

pub(crate) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    match &args.command {
        RefundsCommand::List(args) => list::run(args).await,
        RefundsCommand::Show(args) => show::run(args).await,
        RefundsCommand::Retry(args) => retry::run(args).await,
        RefundsCommand::RequestMarkPaid(args) => request_mark_paid::run(args).await,
        RefundsCommand::ConfirmMarkPaid(args) => confirm_mark_paid::run(args).await,
        RefundsCommand::MarkNotPaid(args) => mark_not_paid::run(args).await,
    }
}

fn no_such_return(id: ReturnId) -> CtlError {
    CtlError::Problem(format!(
        "there is no return {id}.\nTo do: `returnsctl refunds list` shows those that wait for a person"
    ))
}

fn parse_return(text: &str) -> Result<ReturnId, String> {
    match text.parse() {
        // `parse` alone would take "+1".
        Ok(id) if id > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(ReturnId(id)),
        Ok(_) | Err(_) => Err("must be a return's id: a whole number from 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_is_a_whole_number_from_1() {
        assert_eq!(parse_return("456"), Ok(ReturnId(456)));
        for text in ["", "0", "-1", "+1", "1.5", "x", "9223372036854775808"] {
            assert!(parse_return(text).is_err(), "{text:?}");
        }
    }
}
