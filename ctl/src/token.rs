//! `returnsctl token`: keys and bearer tokens, of both formats.

mod attenuate;
mod inspect;
mod keygen;
mod mint;
mod retire;
mod revoke;

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use secrecy::SecretString;
use shared::auth::{KeyUse, TOKEN_MAX, decode_biscuit};
use time::Duration;

use crate::error::CtlError;

/// Make, read, narrow and take back bearer tokens, and make the keys that sign them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Mint(mint::Args),
    Inspect(inspect::Args),
    Attenuate(attenuate::Args),
    Revoke(revoke::Args),
    Keygen(keygen::Args),
    Retire(retire::Args),
}

/// How a token is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// JSON Web Token, EdDSA.
    Jwt,
    /// Biscuit, whose holder can narrow it.
    Biscuit,
}

impl Format {
    fn key_use(self) -> KeyUse {
        match self {
            Self::Jwt => KeyUse::Jwt,
            Self::Biscuit => KeyUse::Biscuit,
        }
    }
}

pub(crate) async fn run(args: &Args) -> Result<ExitCode, CtlError> {
    match &args.command {
        TokenCommand::Mint(args) => mint::run(args),
        TokenCommand::Inspect(args) => inspect::run(args),
        TokenCommand::Attenuate(args) => attenuate::run(args),
        TokenCommand::Revoke(args) => revoke::run(args).await,
        TokenCommand::Keygen(args) => keygen::run(args),
        TokenCommand::Retire(args) => retire::run(args),
    }
}

// No doc comment: see `session::SessionArgs`.
#[derive(Debug, clap::Args)]
struct TokenFileArgs {
    /// File that holds the token; `-`, the default, is standard input. Never an argument: what stands on a command line
    /// is seen by every user of the machine (ps) and is kept in the shell's history.
    #[arg(long, value_name = "FILE", default_value = "-")]
    token_file: PathBuf,
}

impl TokenFileArgs {
    /// # Errors
    /// It cannot be read, or is no token by its length.
    fn read(&self) -> Result<SecretString, CtlError> {
        let from = if self.token_file.as_os_str() == "-" {
            "standard input".to_owned()
        } else {
            self.token_file.display().to_string()
        };
        let cannot = |source| CtlError::Io {
            what: format!("cannot read the token from {from}"),
            source,
        };
        let mut text = String::new();
        let limit = u64::try_from(TOKEN_MAX).unwrap_or(u64::MAX) + 64;
        if self.token_file.as_os_str() == "-" {
            std::io::stdin()
                .lock()
                .take(limit)
                .read_to_string(&mut text)
        } else {
            fs::File::open(&self.token_file)
                .and_then(|file| file.take(limit).read_to_string(&mut text))
        }
        .map_err(cannot)?;
        match text.trim() {
            "" => Err(CtlError::Problem(format!("{from} holds no token"))),
            token if token.len() > TOKEN_MAX => Err(CtlError::Problem(format!(
                "{from} holds more than {TOKEN_MAX} characters: no token is that long"
            ))),
            token => Ok(SecretString::from(token)),
        }
    }
}

/// The bytes of a Biscuit that the api would look at; nobody has checked its signatures.
fn biscuit_bytes(token: &str) -> Result<Vec<u8>, CtlError> {
    decode_biscuit(token).map_err(|source| CtlError::Refused {
        problem: "this is no Biscuit that the api would look at".to_owned(),
        source: Box::new(source),
    })
}

const LONGEST: Duration = Duration::days(30);

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
