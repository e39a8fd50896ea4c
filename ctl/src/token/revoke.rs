//! `returnsctl token revoke`

use std::process::ExitCode;
use std::sync::Arc;

use secrecy::ExposeSecret;
use serde_json::json;
use shared::auth::{AuthArgs, RevocationKind, Verified, Verifier, is_token_id};
use time::OffsetDateTime;

use super::args::TokenFileArgs;
use crate::error::CtlError;
use crate::operator::OperatorArgs;
use crate::output::{self, Message};
use crate::session::SessionArgs;
use crate::store::tokens::{self, Revocation};

const HELP: &str = "\
WHAT THIS MEANS: within five seconds no api accepts the token. An api that cannot read the list refuses all tokens after \
REVOCATIONS_MAX_AGE_SECS.

Without an id, the token itself is read, from --token-file or standard input. A Biscuit is then revoked from its last \
block on: for a narrowed copy, only the copy and tokens made from it. With --whole, or by its token id, all of them are \
revoked.

Example:
  returnsctl token revoke --by j.doe \\
    --reason 'INC-12: sent to the wrong courier' < token
  returnsctl token revoke --token-id 0198f1c2-7a2b-7c3d --by j.doe \\
    --reason 'INC-13: laptop lost'";

/// Revoke a token before it expires.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
#[command(group(clap::ArgGroup::new("id").multiple(false)))]
pub(super) struct Args {
    /// The token's own id (`jti`, `token_id`): revokes it and all tokens made from it. The entry is kept for ever, because
    /// the time of expiry is not known.
    #[arg(long, group = "id", value_name = "ID", value_parser = parse_token_id)]
    token_id: Option<String>,

    /// A revocation id, as `returnsctl token inspect` shows it. The entry is kept for ever.
    #[arg(long, group = "id", value_name = "HEX", value_parser = parse_revocation_id)]
    revocation_id: Option<String>,

    /// Also revoke the token from which this one was made, and all other tokens made from that.
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

pub(super) async fn run(args: Args) -> Result<ExitCode, CtlError> {
    let revocation = Arc::new(args.revocation()?);
    let session = args.session.connect().await?;
    let (author, revoked) = (args.operator.author(), Arc::clone(&revocation));
    let new = session.transaction("revoke_token", move |conn| {
        let (author, revoked) = (author.clone(), Arc::clone(&revoked));
        Box::pin(async move { Ok(tokens::revoke(conn, &revoked, &author).await?) })
    });
    let new = new.await?;
    let (kind, name) = (revocation.kind.as_str(), &revocation.name);
    let report = Message {
        json: json!({ "kind": kind, "token": name, "changed": new }),
        text: if new {
            format!("Revoked {kind} {name}; every api refuses it within five seconds.")
        } else {
            format!("{kind} {name} was revoked already.")
        },
    };
    output::report(&report, args.session.json)?;
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
                problem: "the api does not accept this token; nothing was changed.\n\
                          To do: see `returnsctl token inspect`; --token-id and --revocation-id revoke a token that \
                          cannot be read here"
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

/// When no api accepts the token any more, with the longest leeway; `None` beyond the calendar.
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
