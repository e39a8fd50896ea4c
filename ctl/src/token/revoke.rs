//! `returnsctl token revoke`

use std::process::ExitCode;

use secrecy::ExposeSecret;
use serde_json::json;
use shared::auth::{AuthArgs, RevocationKind, Verified, Verifier, is_token_id};
use sqlx::Connection;
use time::OffsetDateTime;

use super::TokenFileArgs;
use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output;
use crate::session::{SessionArgs, retried};
use crate::store::tokens::{self, Revocation};

const EXAMPLE: &str = "\
WHAT THIS MEANS: within five seconds no api honors the token; one that cannot read the list honors nobody after
REVOCATIONS_MAX_AGE_SECS. Without an id the token itself is read, from --token-file
or standard input: a Biscuit is then revoked from its last block on, so of a narrowed copy only the copy and what was
made from it; with --whole, or by its token id, all of them.

Example:
  returnsctl token revoke --by j.doe --reason 'INC-12: sent to the wrong courier' < token
  returnsctl token revoke --token-id 0198f1c2-… --by j.doe --reason 'INC-13: laptop lost'";

/// Take a token back before it ends.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
#[command(group(clap::ArgGroup::new("id").multiple(false)))]
pub(super) struct Args {
    /// The token's own id (`jti`, `token_id`): it, and all that was made from it. Kept for ever, because when it ends is
    /// not known.
    #[arg(long, group = "id", value_name = "ID", value_parser = parse_token_id)]
    token_id: Option<String>,

    /// A revocation id, as `returnsctl token inspect` shows it. Kept for ever.
    #[arg(long, group = "id", value_name = "HEX", value_parser = parse_revocation_id)]
    revocation_id: Option<String>,

    /// Of the token that is read: also what it was made from, and all else that was.
    #[arg(long, conflicts_with = "id")]
    whole: bool,

    #[command(flatten)]
    token: TokenFileArgs,

    #[command(flatten)]
    auth: AuthArgs,

    #[command(flatten)]
    operator: OperatorArgs,

    #[command(flatten)]
    session: SessionArgs,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    let revocation = args.revocation()?;
    let mut conn = args.session.connect().await?;
    let because = args.operator.because();
    let new = retried(&mut conn, async |conn| {
        let mut tx = conn.begin().await?;
        let new = tokens::revoke(&mut tx, &revocation, because).await?;
        tx.commit().await?;
        Ok::<_, CtlError>(new)
    })
    .await?;
    let (kind, name) = (revocation.kind.as_str(), &revocation.name);
    if args.session.json {
        output::print_json(&json!({ "kind": kind, "token": name, "changed": new }))?;
    } else if new {
        output::print(&format!(
            "revoked {kind} {name}; every api refuses it within five seconds"
        ))?;
    } else {
        output::print(&format!("{kind} {name} was revoked already"))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn revocation(&self) -> Result<Revocation, CtlError> {
        let (kind, name) = match (&self.token_id, &self.revocation_id) {
            (Some(id), _) => (RevocationKind::TokenId, id),
            (None, Some(id)) => (RevocationKind::RevocationId, id),
            (None, None) => return self.of_token(),
        };
        Ok(Revocation {
            kind,
            name: name.clone(),
            expires_at: None,
        })
    }

    fn of_token(&self) -> Result<Revocation, CtlError> {
        let verifier =
            Verifier::load(&self.auth).map_err(|error| CtlError::Problem(error.to_string()))?;
        let token = self.token.read()?;
        let verified = verifier
            .verify(token.expose_secret())
            .map_err(|refused| CtlError::Refused {
                problem: "the api does not honor this token as it is; nothing was changed.\n\
                          To do: see `returnsctl token inspect`; --token-id and --revocation-id revoke what cannot be \
                          read here"
                    .to_owned(),
                source: Box::new(refused),
            })?;
        let (kind, name) = self.named(&verified)?;
        Ok(Revocation {
            kind,
            name: name.to_owned(),
            expires_at: ends(&verified),
        })
    }

    fn named<'v>(&self, token: &'v Verified) -> Result<(RevocationKind, &'v str), CtlError> {
        if !self.whole {
            return Ok((RevocationKind::RevocationId, token.revocation_id()));
        }
        match token.token_id() {
            Some(id) => Ok((RevocationKind::TokenId, id)),
            None => Err(CtlError::Problem(
                "the token has no id of its own (jti, token_id); nothing was changed.\n\
                 To do: revoke it without --whole"
                    .to_owned(),
            )),
        }
    }
}

/// When nobody honors the token any more, with the longest leeway there may be; for ever beyond the calendar.
fn ends(token: &Verified) -> Option<OffsetDateTime> {
    const LEEWAY_SECS: i64 = 300;
    let end = i64::try_from(token.expires_at()).ok()?;
    OffsetDateTime::from_unix_timestamp(end.checked_add(LEEWAY_SECS)?).ok()
}

fn parse_token_id(text: &str) -> Result<String, String> {
    if is_token_id(text) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 128 visible ASCII characters".to_owned())
    }
}

/// 64 hex digits for a JWT, 128 for a block of a Biscuit.
fn parse_revocation_id(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    if [64, 128].contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err("must be 64 or 128 hexadecimal digits".to_owned())
    }
}
