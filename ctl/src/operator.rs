//! Who acts, and why: asked of every command that changes something.
//!
//! Who moves money is not asked but proved, by a token; see [`OperatorToken`].

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use shared::auth::{
    AuthArgs, Caller, Denied, Operation, Policy, Request, RevokedTokens, Verified, Verifier,
};
use sqlx::mysql::MySqlConnection;

use crate::error::CtlError;
use crate::store::actions::Because;

/// The width of `operator_actions.actor_id`.
const LONGEST_NAME: usize = 64;
const LONGEST_REASON: usize = 2_000;

// No doc comment: see `session::SessionArgs`.
#[derive(Debug, clap::Args)]
pub(crate) struct OperatorArgs {
    /// Your name, as an auditor would look you up: at most 64 ASCII characters. There is no default, because the
    /// system's user name is that of a container or a shared account. The MySQL account and the host it came from are
    /// recorded beside it.
    #[arg(long, env = "OPERATOR", value_name = "NAME", value_parser = parse_name)]
    by: String,

    /// Why, for whoever reads it a year from now: an incident, a ticket, a sentence.
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: String,
}

impl OperatorArgs {
    pub(crate) fn because(&self) -> Because<'_> {
        Because {
            by: &self.by,
            reason: &self.reason,
        }
    }
}

// No doc comment: see `session::SessionArgs`.
#[derive(Debug, clap::Args)]
pub(crate) struct OperatorToken {
    /// Your bearer token, of role admin: the same that the api takes. Prefer the variable or --token-file: what stands
    /// on a command line is seen by every user of the machine (ps) and is kept in the shell's history.
    #[arg(long, env = "OPERATOR_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = parse_token)]
    token: Option<SecretString>,

    /// File that holds the token; goes before OPERATOR_TOKEN. Keep it readable by yourself alone.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// JWK set with the keys that verify the token: the one that the api is run with. There is no default, because it
    /// decides who may decide; the key is recorded beside each decision.
    #[arg(long, env = "AUTH_KEYS_FILE", value_name = "FILE")]
    auth_keys_file: Option<PathBuf>,

    /// Who issues the tokens.
    #[arg(long, env = "AUTH_ISSUER", default_value = "returns-dev", value_parser = NonEmptyStringValueParser::new())]
    auth_issuer: String,

    /// Whom the tokens are for.
    #[arg(long, env = "AUTH_AUDIENCE", default_value = "returns-api", value_parser = NonEmptyStringValueParser::new())]
    auth_audience: String,
}

/// Who acts, and by which token.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    pub(crate) caller: Caller,
    pub(crate) token: TokenProof,
}

/// What proved it, as recorded: an auditor compares the key with the api's, and looks the token up at its issuer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TokenProof {
    kid: String,
    /// RFC 7638, with SHA-256; none of a shared secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_thumbprint: Option<String>,
    iss: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<String>,
    revocation_id: String,
}

/// A good token of an admin, which may have been revoked.
#[derive(Debug)]
pub(crate) struct AdminToken {
    token: Verified,
    operator: Operator,
}

impl AdminToken {
    /// Who acts, verified as the api verifies it.
    ///
    /// # Errors
    /// It is revoked, or the list cannot be read.
    pub(crate) async fn unless_revoked(
        self,
        conn: &mut MySqlConnection,
    ) -> Result<Operator, CtlError> {
        if RevokedTokens::read(conn).await?.contains(&self.token) {
            return Err(CtlError::Problem(
                "the token is revoked; nothing was changed.\nTo do: get a new one for yourself"
                    .to_owned(),
            ));
        }
        Ok(self.operator)
    }
}

impl OperatorToken {
    /// The token of whoever decides.
    ///
    /// # Errors
    /// There is none, it is refused, or its bearer may not decide.
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
            iss: self.auth_issuer.clone(),
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
                  To do: get a new one for yourself, and see that AUTH_KEYS_FILE, AUTH_ISSUER and AUTH_AUDIENCE are \
                  those of the api"
            .to_owned(),
        source,
    }
}

/// Never repeats what it is given.
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
    fn p3_a_blank_reason_is_none() {
        assert_eq!(
            parse_reason(" INC-7: größer "),
            Ok("INC-7: größer".to_owned())
        );
        for text in ["", " \t\n", &"x".repeat(2_001)] {
            assert!(parse_reason(text).is_err(), "{text:?}");
        }
    }
}
