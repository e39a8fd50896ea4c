//! `returnsctl token inspect`

use std::process::ExitCode;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use biscuit_auth::UnverifiedBiscuit;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::auth::{AuthArgs, Policy, TokenFormat, Verifier, is_token_id, jwt_revocation_id};

use super::{TokenFileArgs, biscuit_bytes};
use crate::error::CtlError;
use crate::output;

const EXAMPLE: &str = "\
What is printed is no secret: it has no signature, and nobody is let in by it.

Example:
  returnsctl token mint --user 42 --role customer | returnsctl token inspect";

/// Show what a token says and by which ids it can be revoked, as one JSON document.
///
/// Exit code 0 if an api with these settings honors it now, 1 if not; what the token says is printed all the same. Whether
/// it is revoked is in the database, and not asked.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    #[command(flatten)]
    token: TokenFileArgs,

    #[command(flatten)]
    auth: AuthArgs,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let token = args.token.read()?;
    let token = token.expose_secret();
    let verdict = args.verdict(token);
    let mut shown = match TokenFormat::of(token) {
        TokenFormat::Jwt => jwt(token)?,
        TokenFormat::Biscuit => biscuit(token)?,
    };
    shown["honored"] = json!(verdict.is_ok());
    shown["problem"] = json!(verdict.as_ref().err());
    output::print_json(&shown)?;
    Ok(ExitCode::from(u8::from(verdict.is_err())))
}

impl Args {
    /// Whether it is honored now; if not, why.
    fn verdict(&self, token: &str) -> Result<(), String> {
        let verifier = Verifier::load(&self.auth).map_err(|error| error.to_string())?;
        let verified = verifier
            .verify(token)
            .map_err(|refused| refused.to_string())?;
        let honored = Policy::new(&self.auth).honors(&verified);
        honored.map_err(|denied| denied.to_string())
    }
}

/// Header and claims as sent.
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

/// Its blocks as Datalog, the issuer's first.
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
