//! `returnsctl token retire`

use std::process::ExitCode;

use serde_json::json;

use crate::error::CtlError;
use crate::keys::KeyArgs;
use crate::output::{self, Message};

const HELP: &str = "\
WHAT THIS MEANS: within two seconds every api with this set refuses the tokens that the key has signed. If it is the last \
key, the api accepts no token at all. The private key stays in its file, and is of no use any more.

Example:
  returnsctl token retire --kid 3931917ec40206e2";

/// Remove a key from the key set, at the end of a rotation or because it was stolen.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The key's id, as `returnsctl token inspect --token-file FILE` shows it.
    #[arg(long, value_name = "KID")]
    kid: String,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    keys: KeyArgs,
}

pub(super) fn run(args: Args) -> Result<ExitCode, CtlError> {
    args.keys.retire(&args.kid)?;
    let set = &args.keys.auth_keys_file;
    let report = Message {
        text: format!("Removed kid {} from {}.", args.kid, set.display()),
        json: json!({ "kid": args.kid, "auth_keys_file": set }),
    };
    output::report(&report, args.json)?;
    Ok(ExitCode::SUCCESS)
}
