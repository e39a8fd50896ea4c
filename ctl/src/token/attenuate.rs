//! `returnsctl token attenuate`

use std::process::ExitCode;
use std::time::SystemTime;

use biscuit_auth::UnverifiedBiscuit;
use biscuit_auth::builder::BlockBuilder;
use biscuit_auth::macros::check;
use secrecy::ExposeSecret;
use shared::auth::{TokenFormat, decode_biscuit};
use time::{Duration, OffsetDateTime};

use super::args::{TokenFileArgs, biscuit_bytes};
use super::ttl::parse_ttl;
use crate::error::CtlError;
use crate::output;

const HELP: &str = "\
Example, a link for a courier:
  returnsctl token mint --format biscuit --user 42 --role customer --ttl 1d |
    returnsctl token attenuate --return 456 --read-only --ttl 1h";

/// Narrow a Biscuit: print one that can do less, and nothing else, on standard output.
///
/// Needs no key and no server. The new token is sealed: nobody can add to it or get the old one back from it. It expires
/// with the old one at the latest, and is revoked with it.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
#[command(group(clap::ArgGroup::new("how").required(true).multiple(true)))]
pub(super) struct Args {
    /// Only this return.
    #[arg(long = "return", value_name = "ID", group = "how", value_parser = clap::value_parser!(i64).range(1..))]
    return_id: Option<i64>,

    /// Read only.
    #[arg(long, group = "how")]
    read_only: bool,

    /// Only for this time from now: 30s, 15m, 1h or 7d.
    #[arg(long, group = "how", value_parser = parse_ttl)]
    ttl: Option<Duration>,

    #[command(flatten)]
    token: TokenFileArgs,
}

pub(super) fn run(args: Args) -> Result<ExitCode, CtlError> {
    let token = args.token.read()?;
    let token = token.expose_secret();
    if TokenFormat::of(token) == TokenFormat::Jwt {
        return Err(CtlError::Problem(
            "a JWT cannot be narrowed by its holder.\n\
             To do: `returnsctl token mint --format biscuit --user 42 --role customer` makes one that can"
                .to_owned(),
        ));
    }
    let raw = biscuit_bytes(token)?;
    let narrowed = UnverifiedBiscuit::from(&raw)
        .and_then(|token| token.append(args.block(OffsetDateTime::now_utc())?))
        .and_then(|token| token.seal())
        .and_then(|token| token.to_base64())
        .map_err(|source| CtlError::Refused {
            problem: "the token cannot be narrowed: a sealed one cannot".to_owned(),
            source: Box::new(source),
        })?;
    // The api refuses a fifth block and a token that is too large.
    decode_biscuit(&narrowed).map_err(|source| CtlError::Refused {
        problem: "the narrowed token would be too large for the api".to_owned(),
        source: Box::new(source),
    })?;
    output::print(&narrowed)?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Only checks: the api accepts no other blocks.
    fn block(&self, now: OffsetDateTime) -> Result<BlockBuilder, biscuit_auth::error::Token> {
        let about = self
            .return_id
            .map(|id| check!(r#"check if resource("return", {id})"#));
        let looks = self.read_only.then(|| check!(r#"check if access("read")"#));
        let until = self.ttl.map(|ttl| {
            let end = SystemTime::from(now + ttl);
            check!("check if time($now), $now < {end}")
        });
        [about, looks, until]
            .into_iter()
            .flatten()
            .try_fold(BlockBuilder::new(), BlockBuilder::check)
    }
}
