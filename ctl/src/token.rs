//! `returnsctl token`: bearer tokens for development and tests.

use std::process::ExitCode;

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use ed25519_dalek::SigningKey;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use shared::auth::Role;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::error::CtlError;
use crate::keys::{self, KeyArgs};
use crate::output;

/// Make bearer tokens for development.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Mint(MintArgs),
}

const EXAMPLE: &str = "\
Example:
  curl -H \"Authorization: Bearer $(returnsctl token mint --user 42 --role customer)\" http://127.0.0.1:8080/returns/1";

/// Print a signed token, and nothing else, on standard output.
///
/// The token is a JWT signed with Ed25519 (EdDSA). The key pair is made on first use.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
struct MintArgs {
    /// Whom the token speaks for: a customer's or a member of staff's number.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    user: i64,

    /// What the bearer may do.
    #[arg(long, value_enum)]
    role: Role,

    /// How long the token lives: 30s, 15m, 1h or 7d; at most 30d, because a token cannot be taken back by waiting.
    #[arg(long, default_value = "1h", value_parser = parse_ttl)]
    ttl: Duration,

    /// The `iss` claim. Must be the api's.
    #[arg(long, env = "JWT_ISSUER", default_value = "returns-dev", value_parser = NonEmptyStringValueParser::new())]
    jwt_issuer: String,

    /// The `aud` claim. Must be the api's.
    #[arg(long, env = "JWT_AUDIENCE", default_value = "returns-api", value_parser = NonEmptyStringValueParser::new())]
    jwt_audience: String,

    #[command(flatten)]
    keys: KeyArgs,
}

#[derive(Debug, Serialize)]
struct Claims<'a> {
    user_id: i64,
    sub: String,
    role: Role,
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: Uuid,
}

const LONGEST: Duration = Duration::days(30);

pub(crate) fn run(args: &Args) -> Result<ExitCode, CtlError> {
    match &args.command {
        TokenCommand::Mint(args) => mint(args),
    }
}

fn mint(args: &MintArgs) -> Result<ExitCode, CtlError> {
    let key = args.keys.ensure()?;
    let token = args.sign(&key, OffsetDateTime::now_utc())?;
    output::print(&token)?;
    Ok(ExitCode::SUCCESS)
}

impl MintArgs {
    fn sign(&self, key: &SigningKey, now: OffsetDateTime) -> Result<String, CtlError> {
        let claims = Claims {
            user_id: self.user,
            sub: self.user.to_string(),
            role: self.role,
            iss: &self.jwt_issuer,
            aud: &self.jwt_audience,
            iat: now.unix_timestamp(),
            nbf: now.unix_timestamp(),
            exp: (now + self.ttl).unix_timestamp(),
            jti: Uuid::now_v7(),
        };
        let header = Header {
            kid: Some(keys::key_id(&key.verifying_key())),
            ..Header::new(Algorithm::EdDSA)
        };
        let refused = |source: jsonwebtoken::errors::Error| CtlError::Refused {
            problem: "the token could not be signed".to_owned(),
            source: Box::new(source),
        };
        let pem = keys::private_pem(key);
        let signer = EncodingKey::from_ed_pem(pem.as_ref().as_bytes()).map_err(refused)?;
        encode(&header, &claims, &signer).map_err(refused)
    }
}

/// Reads `30s`, `15m`, `1h`, `7d`.
fn parse_ttl(text: &str) -> Result<Duration, String> {
    let unreadable = || "must be a number and a unit: 30s, 15m, 1h or 7d".to_owned();
    let unit_at = text.len().saturating_sub(1);
    let (number, unit) = text.split_at_checked(unit_at).ok_or_else(unreadable)?;
    let unit_secs = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(unreadable()),
    };
    // `parse` alone would take "+1".
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(unreadable());
    }
    let number: u32 = number.parse().map_err(|_| unreadable())?;
    let ttl = Duration::seconds(i64::from(number) * unit_secs);
    if ttl.is_zero() || ttl > LONGEST {
        return Err("must be between 1s and 30d".to_owned());
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_a_number_and_a_unit() {
        for (text, secs) in [
            ("30s", 30),
            ("15m", 900),
            ("1h", 3_600),
            ("7d", 604_800),
            ("30d", 2_592_000),
        ] {
            assert_eq!(parse_ttl(text), Ok(Duration::seconds(secs)), "{text}");
        }
    }

    #[test]
    fn a_ttl_that_is_none_is_refused() {
        for text in [
            "",
            "s",
            "1",
            "h1",
            "-1h",
            "+1h",
            "1.5h",
            "1 h",
            "1w",
            "0s",
            "31d",
            "4294967296s",
            "1ä",
            "é",
        ] {
            assert!(parse_ttl(text).is_err(), "{text}");
        }
    }
}
