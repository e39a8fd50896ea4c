//! `returnsctl token inspect`

use std::process::ExitCode;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use biscuit_auth::UnverifiedBiscuit;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::auth::{AuthArgs, Policy, TokenFormat, Verifier, is_token_id, jwt_revocation_id};

use super::args::{TokenFileArgs, biscuit_bytes};
use crate::error::CtlError;
use crate::output;

const HELP: &str = "\
The output is no secret: it has no signature, so nobody can log in with it.

Example:
  returnsctl token mint --user 42 --role customer | returnsctl token inspect";

/// Show the contents of a token and the ids that revoke it, as one JSON document.
///
/// Exit code 0 if an api with these settings accepts the token now, 1 if not; the contents are printed in both cases. The
/// list of revoked tokens is not read: it is in the database.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(flatten)]
    token: TokenFileArgs,

    #[command(flatten)]
    auth: AuthArgs,
}

pub(super) fn run(args: Args) -> Result<ExitCode, CtlError> {
    let token = args.token.read()?;
    let token = token.expose_secret();
    let accepted = args.accepts(token);
    let mut shown = match TokenFormat::of(token) {
        TokenFormat::Jwt => jwt(token)?,
        TokenFormat::Biscuit => biscuit(token)?,
    };
    shown["honored"] = json!(accepted.is_ok());
    shown["problem"] = json!(accepted.as_ref().err());
    output::print_json(&shown)?;
    Ok(ExitCode::from(u8::from(accepted.is_err())))
}

impl Args {
    /// Whether an api with these settings accepts the token now; if not, why.
    fn accepts(&self, token: &str) -> Result<(), String> {
        let verifier = Verifier::load(&self.auth).map_err(|error| error.to_string())?;
        let verified = verifier
            .verify(token)
            .map_err(|refused| refused.to_string())?;
        let honored = Policy::new(&self.auth).accepts(&verified);
        honored.map_err(|denied| denied.to_string())
    }
}

/// Header and claims, without the signature.
fn jwt(token: &str) -> Result<Value, CtlError> {
    let mut parts = token.split('.');
    let mut part = || -> Option<Value> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    let (header, claims) = part().zip(part()).ok_or_else(no_token)?;
    Ok(json!({
        "format": "jwt",
        "header": header,
        "claims": claims,
        "token_id": claims["jti"].as_str().filter(|id| is_token_id(id)),
        "revocation_ids": [jwt_revocation_id(token)],
    }))
}

/// The blocks as Datalog, the issuer's first.
fn biscuit(token: &str) -> Result<Value, CtlError> {
    let raw = biscuit_bytes(token)?;
    let token = UnverifiedBiscuit::from(&raw).map_err(|_| no_token())?;
    let blocks: Result<Vec<String>, _> = (0..token.block_count())
        .map(|block| token.print_block_source(block))
        .collect();
    let ids = token.revocation_identifiers();
    let ids: Vec<String> = ids.iter().map(hex::encode).collect();
    Ok(json!({
        "format": "biscuit",
        "root_key_id": token.root_key_id(),
        "blocks": blocks.map_err(|_| no_token())?,
        "revocation_ids": ids,
    }))
}

fn no_token() -> CtlError {
    CtlError::Problem("this is no token: neither a JWT nor a Biscuit".to_owned())
}
