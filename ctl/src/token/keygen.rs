//! `returnsctl token keygen`

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use shared::auth::Role;

use super::args::Format;
use crate::error::CtlError;
use crate::keys::KeyArgs;
use crate::output::{self, Message};

const HELP: &str = "\
To rotate: make the new key, wait until every api has read the set, sign with the new key, wait until the last token of \
the old key has expired, and take the old key out of the set (docs/SECURITY.md).

Example:
  returnsctl token keygen --format biscuit \\
    --private-key-file keys/biscuit-2.pem --roles customer,admin";

/// Make a key pair that signs tokens: the private key goes into a new file, the public key into the key set.
///
/// During a rotation the keys of the set verify tokens side by side. The api reads the set again within seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The format of the tokens that the key signs.
    #[arg(long, value_enum)]
    format: Format,

    /// The file for the private key; must not exist. Default: JWT_PRIVATE_KEY_FILE or BISCUIT_PRIVATE_KEY_FILE.
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,

    /// The roles that tokens of this key may have; a token with another role is refused. Default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    roles: Vec<Role>,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    keys: KeyArgs,
}

pub(super) fn run(args: Args) -> Result<ExitCode, CtlError> {
    let key_use = args.format.key_use();
    let path = match &args.private_key_file {
        Some(path) => path,
        None => args.keys.private_key_file(key_use),
    };
    let signer = args.keys.generate(key_use, path, &args.roles)?;
    let set = &args.keys.auth_keys_file;
    let kid = signer.kid();
    let report = Message {
        text: format!(
            "kid {kid}\nprivate key  {}\npublic key   added to {}",
            path.display(),
            set.display()
        ),
        json: json!({ "kid": kid, "private_key_file": path, "auth_keys_file": set }),
    };
    output::report(&report, args.json)?;
    Ok(ExitCode::SUCCESS)
}
