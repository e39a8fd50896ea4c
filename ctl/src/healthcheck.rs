//! `returnsctl healthcheck`: does a program respond?

use std::net::SocketAddr;
use std::process::ExitCode;

use shared::runtime::ops;

use crate::error::CtlError;
use crate::output;

/// Ask a running program's /livez; exit 0 if it is alive, 1 if not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address of the program's operator endpoints, as in its start line.
    #[arg(long, env = "OPS_LISTEN", value_name = "HOST:PORT")]
    ops_listen: SocketAddr,
}

pub(crate) fn run(args: Args) -> Result<ExitCode, CtlError> {
    if ops::healthcheck(args.ops_listen) {
        output::print("alive")?;
        Ok(ExitCode::SUCCESS)
    } else {
        let text = format!("no program is alive at {}", args.ops_listen);
        Err(CtlError::Problem(text))
    }
}
