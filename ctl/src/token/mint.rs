//! `returnsctl token mint`

use std::process::ExitCode;
use std::time::SystemTime;

use biscuit_auth::Biscuit;
use biscuit_auth::builder::{Term, fact, string};
use clap::builder::NonEmptyStringValueParser;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use shared::auth::Role;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::args::Format;
use super::ttl::parse_ttl;
use crate::error::CtlError;
use crate::keys::{KeyArgs, Signer};
use crate::output;

const HELP: &str = "\
Example:
  TOKEN=$(returnsctl token mint --user 42 --role customer)
  curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:8080/returns/1";

/// Print a signed token, and nothing else, on standard output.
///
/// Signed with Ed25519. The key pair is made on first use.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The format of the token.
    #[arg(long, value_enum, default_value = "jwt")]
    format: Format,

    /// The user of the token: the number of a customer or of a member of staff.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    user: i64,

    /// What the bearer may do.
    #[arg(long, value_enum)]
    role: Role,

    /// Lifetime of the token: 30s, 15m, 1h or 7d; at most 30d. It can be revoked earlier.
    #[arg(long, default_value = "1h", value_parser = parse_ttl)]
    ttl: Duration,

    /// The issuer, as the api expects it.
    #[arg(long, env = "AUTH_ISSUER", default_value = "returns-dev", value_parser = NonEmptyStringValueParser::new())]
    auth_issuer: String,

    /// The audience, as the api expects it.
    #[arg(long, env = "AUTH_AUDIENCE", default_value = "returns-api", value_parser = NonEmptyStringValueParser::new())]
    auth_audience: String,

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

pub(super) fn run(args: Args) -> Result<ExitCode, CtlError> {
    let signer = args.keys.ensure(args.format.key_use())?;
    let now = OffsetDateTime::now_utc();
    let token = match args.format {
        Format::Jwt => args.jwt(&signer, now)?,
        Format::Biscuit => args.biscuit(&signer, now)?,
    };
    output::print(&token)?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn jwt(&self, signer: &Signer, now: OffsetDateTime) -> Result<String, CtlError> {
        let claims = Claims {
            user_id: self.user,
            sub: self.user.to_string(),
            role: self.role,
            iss: &self.auth_issuer,
            aud: &self.auth_audience,
            iat: now.unix_timestamp(),
            nbf: now.unix_timestamp(),
            exp: (now + self.ttl).unix_timestamp(),
            jti: Uuid::now_v7(),
        };
        let header = Header {
            kid: Some(signer.kid()),
            ..Header::new(Algorithm::EdDSA)
        };
        let pem = signer.pem();
        EncodingKey::from_ed_pem(pem.as_ref().as_bytes())
            .and_then(|key| encode(&header, &claims, &key))
            .map_err(unsigned)
    }

    fn biscuit(&self, signer: &Signer, now: OffsetDateTime) -> Result<String, CtlError> {
        let time = |at: OffsetDateTime| Term::from(SystemTime::from(at));
        let facts = [
            ("user", Term::Integer(self.user)),
            ("role", string(self.role.as_str())),
            ("audience", string(&self.auth_audience)),
            ("issuer", string(&self.auth_issuer)),
            ("issued_at", time(now)),
            ("expires_at", time(now + self.ttl)),
            ("token_id", string(&Uuid::now_v7().to_string())),
        ];
        facts
            .into_iter()
            .try_fold(Biscuit::builder(), |builder, (name, term)| {
                builder.fact(fact(name, &[term]))
            })
            .map(|builder| builder.root_key_id(signer.root_key_id()))
            .and_then(|builder| builder.build(&signer.biscuit()))
            .and_then(|token| token.to_base64())
            .map_err(unsigned)
    }
}

fn unsigned(source: impl std::error::Error + Send + Sync + 'static) -> CtlError {
    CtlError::Refused {
        problem: "the token could not be signed".to_owned(),
        source: Box::new(source),
    }
}
