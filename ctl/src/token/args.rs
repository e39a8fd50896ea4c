//! Tokens on the command line: their format, and the file that they come from.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use secrecy::SecretString;
use shared::auth::{KeyUse, TOKEN_MAX, decode_biscuit};

use crate::error::CtlError;

/// The format of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// JSON Web Token, EdDSA.
    Jwt,
    /// Biscuit, whose holder can narrow it.
    Biscuit,
}

impl Format {
    pub(super) fn key_use(self) -> KeyUse {
        match self {
            Self::Jwt => KeyUse::Jwt,
            Self::Biscuit => KeyUse::Biscuit,
        }
    }
}

// No doc comment: see `SessionArgs`.
#[derive(Debug, clap::Args)]
pub(super) struct TokenFileArgs {
    /// File with the token; `-`, the default, is standard input. The token is never an argument: every user of the machine
    /// can see a command line (ps), and the shell keeps it in its history.
    #[arg(long, value_name = "FILE", default_value = "-")]
    token_file: PathBuf,
}

impl TokenFileArgs {
    /// # Errors
    /// The file cannot be read, or its length is not that of a token.
    pub(super) fn read(&self) -> Result<SecretString, CtlError> {
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
            "" => Err(CtlError::Problem(format!("{from} has no token"))),
            token if token.len() > TOKEN_MAX => Err(CtlError::Problem(format!(
                "{from} has more than {TOKEN_MAX} characters: no token is that long"
            ))),
            token => Ok(SecretString::from(token)),
        }
    }
}

/// The bytes of a Biscuit that the api would read; its signatures are not checked.
pub(super) fn biscuit_bytes(token: &str) -> Result<Vec<u8>, CtlError> {
    decode_biscuit(token).map_err(|source| CtlError::Refused {
        problem: "this is no Biscuit that the api would read".to_owned(),
        source: Box::new(source),
    })
}
