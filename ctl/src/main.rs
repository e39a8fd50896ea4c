//! `returnsctl`: the operator's command line. Each sub-command has a file of its own name.

mod cli;
mod error;
mod layout;
mod output;

mod dead_letters;
mod dev_gateway;
mod doctor;
mod healthcheck;
mod migrate;
mod outbox;
mod refunds;
mod returns;
mod seed;
mod status;
mod token;
mod top;
mod topics;
mod trace;

mod broker;
mod consumer_group;
mod history;
mod http;
mod keys;
mod operator;
mod overview;
mod return_head;
mod return_id;
mod session;
mod store;
mod text;
mod waiting;

use std::process::ExitCode;

use shared::runtime::settings::{self, Refused};

use crate::cli::{Cli, Command};
use crate::error::CtlError;

fn main() -> ExitCode {
    match settings::parse(std::env::args_os()) {
        Ok(cli) => run(cli),
        Err(refused) => {
            let printed = if refused.exit == 0 {
                // clap breaks every line but that of the usage.
                output::print(&layout::fit(&refused.message))
            } else {
                output::complain(&refused.message)
            };
            printed.map_or_else(|error| error.exit_code(), |()| ExitCode::from(refused.exit))
        }
    }
}

fn run(cli: Cli) -> ExitCode {
    let _spans = match shared::runtime::trace::init(&cli.trace, "returnsctl", true) {
        Ok(flush) => flush,
        Err(problem) => return Refused::listing(&[problem]).print(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(dispatch(cli.command));
            // A call to a silent server may block its thread for seconds more; nobody needs its result.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(CtlError::Io {
            what: "cannot start".to_owned(),
            source: error,
        }),
    };
    outcome.unwrap_or_else(|error| {
        // If standard error is closed, the exit code still says it.
        let _ = output::complain(&error.report());
        error.exit_code()
    })
}

/// The exit code of a sub-command that ran; a failure to run is an error.
async fn dispatch(command: Command) -> Result<ExitCode, CtlError> {
    match command {
        Command::Migrate(args) => migrate::run(args).await,
        Command::Topics(args) => topics::run(args).await,
        Command::Seed(args) => seed::run(args).await,
        Command::Token(args) => token::run(args).await,
        Command::Outbox(args) => outbox::run(args).await,
        Command::Returns(args) => returns::run(args).await,
        Command::Refunds(args) => refunds::run(args).await,
        Command::Trace(args) => trace::run(args).await,
        Command::DeadLetters(args) => dead_letters::run(args).await,
        Command::DevGateway(args) => dev_gateway::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Top(args) => top::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Healthcheck(args) => healthcheck::run(args),
    }
}
