//! Who acts, and why: every command that changes something needs both.
//!
//! A command that decides about money does not take a typed name; it takes a token, see [`OperatorToken`].

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use shared::auth::{
    AuthArgs, Caller, Denied, Operation, Policy, Request, RevokedTokens, TOKEN_MAX, Verified,
    Verifier,
};
use shared::domain::reason_code::{REASON_CODE, is_reason_code};

use crate::error::CtlError;
use crate::session::Session;
use crate::store::actions::Author;

/// The width of `operator_actions.actor_id`.
const LONGEST_NAME: usize = 64;
const LONGEST_REASON: usize = 2_000;

// No doc comment: see `SessionArgs`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OperatorArgs {
    /// Your name, as an auditor would look you up: at most 64 ASCII characters. There is no default, because the
    /// system's user name is often that of a container or a shared account. Your MySQL account and host are recorded too.
    #[arg(long, env = "OPERATOR", value_name = "NAME", value_parser = parse_name)]
    by: String,

    /// Why, for a reader a year from now: an incident, a ticket, a sentence.
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: String,
}

impl OperatorArgs {
    pub(crate) fn author(&self) -> Author {
        Author {
            actor_type: "operator",
            actor_id: self.by.clone(),
            reason: self.reason.clone(),
        }
    }
}

// No doc comment: see `SessionArgs`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OperatorToken {
    /// Your bearer token with the role admin, as the api takes it. Prefer the variable or --token-file: every user of the
    /// machine can see a command line (ps), and the shell keeps it in its history.
    #[arg(long, env = "OPERATOR_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = parse_token)]
    token: Option<SecretString>,

    /// File with the token; used instead of OPERATOR_TOKEN. Only you should be able to read it.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// JWK set with the keys that verify the token: the key set of the api. There is no default, because this file decides
    /// who is an admin. The key is recorded with each decision.
    #[arg(long, env = "AUTH_KEYS_FILE", value_name = "FILE")]
    auth_keys_file: Option<PathBuf>,

    /// The issuer of the tokens, as the api expects it.
    #[arg(long, env = "AUTH_ISSUER", default_value = "returns-dev", value_parser = NonEmptyStringValueParser::new())]
    auth_issuer: String,

    /// The audience of the tokens, as the api expects it.
    #[arg(long, env = "AUTH_AUDIENCE", default_value = "returns-api", value_parser = NonEmptyStringValueParser::new())]
    auth_audience: String,
}

/// A verified admin.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    pub(crate) caller: Caller,
    pub(crate) token: TokenProof,
}

/// The token as recorded: an auditor compares the key with the api's, and looks the token up at its issuer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TokenProof {
    kid: String,
    /// RFC 7638, with SHA-256; `None` for a shared secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_thumbprint: Option<String>,
    iss: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<String>,
    revocation_id: String,
}

/// A valid token of an admin, which may have been revoked.
#[derive(Debug)]
pub(crate) struct AdminToken {
    token: Verified,
    operator: Operator,
}

impl AdminToken {
    /// The admin, verified as the api verifies callers.
    ///
    /// # Errors
    /// The token is revoked, or the list cannot be read.
    pub(crate) async fn unless_revoked(self, session: &Session) -> Result<Operator, CtlError> {
        let revoked = session.read("read_revoked_tokens", |conn| {
            Box::pin(RevokedTokens::read(conn))
        });
        if revoked.await?.contains(&self.token) {
            return Err(CtlError::Problem(
                "the token is revoked; nothing was changed.\nTo do: get a new token".to_owned(),
            ));
        }
        Ok(self.operator)
    }
}

impl OperatorToken {
    /// The token of the person who decides.
    ///
    /// # Errors
    /// There is none, it is refused, or its bearer is no admin.
    pub(crate) fn admin(&self) -> Result<AdminToken, CtlError> {
        let text = self.read()?;
        let args = self.auth_args()?;
        let token = verifier(&args)?.verify(text.expose_secret());
        let token = token.map_err(|refused| not_honored(Box::new(refused)))?;
        let request = Request::of(Operation::RefundsDecide);
        let caller = match Policy::new(&args).decide(&token, &request) {
            Ok(caller) => caller.clone(),
            Err(denied @ (Denied::Token(_) | Denied::Undecided)) => {
                return Err(not_honored(Box::new(denied)));
            }
            Err(Denied::Forbidden | Denied::NotYours) => {
                return Err(CtlError::Problem(format!(
                    "the token of user {} may not decide about refunds: it needs the role admin, unnarrowed; nothing was \
                     changed.\nTo do: ask an admin",
                    token.caller().user
                )));
            }
        };
        let proof = TokenProof {
            kid: token.kid().to_owned(),
            key_thumbprint: token.key_thumbprint().map(str::to_owned),
            iss: caller
                .issuer
                .as_deref()
                .unwrap_or(&self.auth_issuer)
                .to_owned(),
            token_id: token.token_id().map(str::to_owned),
            revocation_id: token.revocation_id().to_owned(),
        };
        let operator = Operator {
            caller,
            token: proof,
        };
        Ok(AdminToken { token, operator })
    }

    fn auth_args(&self) -> Result<AuthArgs, CtlError> {
        const LEEWAY_SECS: u64 = 30;
        let Some(path) = &self.auth_keys_file else {
            return Err(CtlError::Usage(vec![
                "--auth-keys-file (AUTH_KEYS_FILE) is required: the key set that the api verifies tokens with".to_owned(),
            ]));
        };
        Ok(AuthArgs {
            auth_keys_file: path.clone(),
            auth_issuer: self.auth_issuer.clone(),
            auth_audience: self.auth_audience.clone(),
            auth_leeway_secs: LEEWAY_SECS,
            auth_token_max_bytes: u16::try_from(TOKEN_MAX).unwrap_or(u16::MAX),
        })
    }

    fn read(&self) -> Result<SecretString, CtlError> {
        match (&self.token_file, &self.token) {
            (Some(path), _) => {
                let text = fs::read_to_string(path).map_err(|source| CtlError::Io {
                    what: format!("cannot read the token from {}", path.display()),
                    source,
                })?;
                Ok(SecretString::from(text.trim()))
            }
            (None, Some(token)) => Ok(token.clone()),
            (None, None) => Err(CtlError::Usage(vec![
                "--token-file or --token (OPERATOR_TOKEN) is required".to_owned(),
            ])),
        }
    }
}

fn verifier(args: &AuthArgs) -> Result<Verifier, CtlError> {
    Verifier::load(args).map_err(|error| {
        CtlError::Problem(format!(
            "no token can be verified: {error}; nothing was changed.\n\
             To do: point AUTH_KEYS_FILE at the key set that the api verifies tokens with"
        ))
    })
}

fn not_honored(source: Box<dyn Error + Send + Sync>) -> CtlError {
    CtlError::Refused {
        problem: "the token is refused; nothing was changed.\n\
                  To do: get a new token, and see that AUTH_KEYS_FILE, AUTH_ISSUER and AUTH_AUDIENCE are those of the \
                  api"
            .to_owned(),
        source,
    }
}

/// The error never repeats the text: it may be a secret.
fn parse_token(text: &str) -> Result<SecretString, String> {
    match text.trim() {
        "" => Err("OPERATOR_TOKEN (--token) is empty".to_owned()),
        token => Ok(SecretString::from(token)),
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    let fits = (1..=LONGEST_NAME).contains(&name.len());
    if fits
        && name
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic())
    {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "must be 1 to {LONGEST_NAME} printable ASCII characters"
        ))
    }
}

pub(crate) fn parse_reason_code(text: &str) -> Result<String, String> {
    if is_reason_code(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("must be {REASON_CODE}"))
    }
}

pub(crate) fn parse_reason(text: &str) -> Result<String, String> {
    let reason = text.trim();
    if (1..=LONGEST_REASON).contains(&reason.chars().count()) {
        Ok(reason.to_owned())
    } else {
        Err(format!("must be 1 to {LONGEST_REASON} characters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_its_column_and_is_not_blank() {
        assert_eq!(parse_name(" j.doe@shop "), Ok("j.doe@shop".to_owned()));
        for text in ["", "  ", "jörg", "a\nb", &"x".repeat(65)] {
            assert!(parse_name(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn p3_a_blank_reason_is_refused() {
        assert_eq!(
            parse_reason(" INC-7: größer "),
            Ok("INC-7: größer".to_owned())
        );
        for text in ["", " \t\n", &"x".repeat(2_001)] {
            assert!(parse_reason(text).is_err(), "{text:?}");
        }
    }
}
