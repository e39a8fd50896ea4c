//! Who acts, and why: asked of every command that changes something.
//!
//! Who moves money is not asked but proved, by a token; see [`OperatorToken`].

use std::fs;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use shared::auth::{AuthArgs, Caller, Verifier};

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

    /// PEM file with the public key that verifies the token: the one that the api is run with. There is no default,
    /// because it decides who may decide; the digest of the key is recorded beside each decision.
    #[arg(long, env = "JWT_PUBLIC_KEY_FILE", value_name = "FILE")]
    jwt_public_key_file: Option<PathBuf>,

    /// The `iss` the token must carry.
    #[arg(long, env = "JWT_ISSUER", default_value = "returns-dev", value_parser = NonEmptyStringValueParser::new())]
    jwt_issuer: String,

    /// The `aud` the token must carry.
    #[arg(long, env = "JWT_AUDIENCE", default_value = "returns-api", value_parser = NonEmptyStringValueParser::new())]
    jwt_audience: String,
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
    key_sha256: String,
    iss: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

impl OperatorToken {
    /// Who acts, verified as the api verifies it.
    ///
    /// # Errors
    /// There is no token, it is refused, or its bearer is no admin.
    pub(crate) fn admin(&self) -> Result<Operator, CtlError> {
        let token = self.read()?;
        let verifier = self.verifier()?;
        let verified = verifier
            .verify(token.expose_secret())
            .map_err(|refused| CtlError::Refused {
                problem: "the token is refused; nothing was changed.\n\
                          To do: get a new one for yourself, and see that JWT_PUBLIC_KEY_FILE, JWT_ISSUER and \
                          JWT_AUDIENCE are those of the api"
                    .to_owned(),
                source: Box::new(refused),
            })?;
        let caller = verified.caller;
        caller.require_admin().map_err(|_| {
            CtlError::Problem(format!(
                "the token of user {} does not have the role admin; nothing was changed.\n\
                 To do: ask an admin",
                caller.user
            ))
        })?;
        Ok(Operator {
            caller,
            token: TokenProof {
                key_sha256: verifier.key_sha256().to_owned(),
                iss: self.jwt_issuer.clone(),
                jti: verified.jti,
            },
        })
    }

    fn verifier(&self) -> Result<Verifier, CtlError> {
        let Some(path) = &self.jwt_public_key_file else {
            return Err(CtlError::Usage(vec![
                "--jwt-public-key-file (JWT_PUBLIC_KEY_FILE) is required: the public key that the api verifies tokens \
                 with"
                    .to_owned(),
            ]));
        };
        let args = AuthArgs {
            jwt_public_key_file: path.clone(),
            jwt_issuer: self.jwt_issuer.clone(),
            jwt_audience: self.jwt_audience.clone(),
        };
        Verifier::load(&args).map_err(|error| {
            CtlError::Problem(format!(
                "no token can be verified: JWT_PUBLIC_KEY_FILE {}: {}; nothing was changed.\n\
                 To do: point it at the public key that the api verifies tokens with",
                error.path.display(),
                error.reason
            ))
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
