//! `returnsctl token keygen`

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use shared::auth::Role;

use super::Format;
use crate::error::CtlError;
use crate::keys::KeyArgs;
use crate::output;

const EXAMPLE: &str = "\
To rotate: make the new key, let every api read the set, sign with the new key, wait until the last token of the old one
has ended, take the old key out of the set (docs/SECURITY.md).

Example:
  returnsctl token keygen --format biscuit --private-key-file keys/biscuit-2.pem --roles customer,admin";

/// Make a key pair that signs tokens: the private half into a new file, the public half into the key set.
///
/// Both keys of a rotation verify tokens side by side. The api reads the set again within seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// What the key is to sign.
    #[arg(long, value_enum)]
    format: Format,

    /// The file for the private half; must not exist. Default: JWT_PRIVATE_KEY_FILE or BISCUIT_PRIVATE_KEY_FILE.
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,

    /// The roles that the key may vouch for; a token with another one is refused. Default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    roles: Vec<Role>,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    keys: KeyArgs,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let key_use = args.format.key_use();
    let path = match &args.private_key_file {
        Some(path) => path,
        None => args.keys.private_key_file(key_use),
    };
    let signer = args.keys.generate(key_use, path, &args.roles)?;
    let set = &args.keys.auth_keys_file;
    if args.json {
        output::print_json(
            &json!({ "kid": signer.kid(), "private_key_file": path, "auth_keys_file": set }),
        )?;
    } else {
        output::print(&format!(
            "kid {}\nprivate key  {}\npublic half  added to {}",
            signer.kid(),
            path.display(),
            set.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
