//! `returnsctl token retire`

use std::process::ExitCode;

use serde_json::json;

use crate::error::CtlError;
use crate::keys::KeyArgs;
use crate::output;

const EXAMPLE: &str = "\
WHAT THIS MEANS: within two seconds every api with this set refuses what the key has signed. It can take the last key out:
then nobody is let in. The private half stays where it is, and signs nothing any more.

Example:
  returnsctl token retire --kid 3931917ec40206e2";

/// Take a key out of the key set, at the end of a rotation or because it was stolen.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The key, as `returnsctl token keygen` and `inspect` name it.
    #[arg(long, value_name = "KID")]
    kid: String,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    keys: KeyArgs,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CtlError> {
    args.keys.retire(&args.kid)?;
    let set = &args.keys.auth_keys_file;
    if args.json {
        output::print_json(&json!({ "kid": args.kid, "auth_keys_file": set }))?;
    } else {
        output::print(&format!("kid {} is out of {}", args.kid, set.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
