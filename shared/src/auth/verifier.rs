//! From a token's text to what its issuer says, whichever format it has.

use std::fmt;

use biscuit_auth::Biscuit;
use biscuit_auth::builder::Fact;

use super::key_ring::{KeyError, KeyRing, KeyUse, Signer};
use super::policy::Judged;
use super::revocation::RevocationKind;
use super::{AuthArgs, Caller, Unvetted, biscuit, jwt};

/// The longest token that is looked at, in characters.
pub const TOKEN_MAX: usize = 4096;

/// Reads tokens with the keys of one reading of the key file.
#[derive(Debug)]
pub struct Verifier {
    ring: KeyRing,
    args: AuthArgs,
}

/// How a token is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    Jwt,
    Biscuit,
}

/// A token whose signature is good, and what it says. Whether it is in time, for us, and not taken back, is judged for
/// each request: by [`super::Policy`] and [`super::RevokedTokens`].
pub struct Verified {
    pub(super) claims: Claims,
    pub(super) signer: Signer,
    /// Its own Datalog, if it is a Biscuit.
    pub(super) biscuit: Option<Biscuit>,
    pub(super) judged: Judged,
}

/// What its issuer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) caller: Caller,
    /// Unix seconds, as is `expires_at`.
    pub(super) issued_at: u64,
    pub(super) expires_at: u64,
    pub(super) token_id: Option<String>,
    /// One per block.
    pub(super) revocation_ids: Vec<String>,
}

/// Why a token was refused. Never repeats the token; not for who sent it over a network.
#[derive(thiserror::Error)]
pub enum Refused {
    #[error("longer than {TOKEN_MAX} characters")]
    Length,
    #[error("malformed, not in time, or not verifiable: {}", jwt_reason(.0))]
    Jwt(jsonwebtoken::errors::Error),
    #[error("typ is not JWT or at+jwt")]
    Type,
    #[error("the header carries crit, jku, jwk, x5u or x5c")]
    ForeignHeader,
    #[error("no key has its kid")]
    UnknownKey,
    #[error("{0}")]
    Unvetted(#[from] Unvetted),
    #[error("malformed or not verifiable: {}", biscuit_reason(.0))]
    Biscuit(biscuit_auth::error::Token),
    #[error("it is spelt in an unusual way")]
    SecondSpelling,
    #[error("{0} is said more than once")]
    Twice(&'static str),
    #[error("user_id and sub (user, role) are missing, differ, or are no positive number")]
    User,
    #[error("issued_at or expires_at is missing")]
    Time,
    #[error("its issuer says what is not an issuer's to say")]
    Saying,
    #[error("the time to read it was not enough")]
    Undecided,
}

/// Without the libraries' errors, see `jwt_reason`.
impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refused({self})")
    }
}

impl From<jsonwebtoken::errors::Error> for Refused {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        Self::Jwt(error)
    }
}

/// The library's own words quote the JSON: an `alg` that nobody knows, before any signature was looked at.
fn jwt_reason(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind as Jwt;
    match error.kind() {
        Jwt::InvalidSignature => "the signature",
        Jwt::InvalidAlgorithm => "alg is not its key's",
        Jwt::ExpiredSignature => "exp is past",
        Jwt::ImmatureSignature => "nbf is to come",
        Jwt::InvalidAudience => "aud",
        Jwt::InvalidIssuer => "iss",
        Jwt::MissingRequiredClaim(_) => "exp, iss or aud is missing",
        Jwt::Json(_) => "a header or a claim has not the form it should have",
        _ => "the format",
    }
}

/// The library's own words may quote a check, which is the holder's text.
fn biscuit_reason(error: &biscuit_auth::error::Token) -> &'static str {
    match error {
        biscuit_auth::error::Token::Format(biscuit_auth::error::Format::Signature(_)) => {
            "the signature"
        }
        biscuit_auth::error::Token::Format(_) => "the format",
        _ => "its Datalog",
    }
}

impl Refused {
    /// A label for metrics.
    pub fn code(&self) -> &'static str {
        use jsonwebtoken::errors::ErrorKind as Jwt;
        match self {
            Self::Length | Self::SecondSpelling => "malformed",
            Self::Jwt(error) => match error.kind() {
                Jwt::InvalidSignature => "signature",
                Jwt::InvalidAlgorithm => "algorithm",
                Jwt::ExpiredSignature | Jwt::ImmatureSignature => "time",
                Jwt::InvalidAudience | Jwt::InvalidIssuer => "not_for_us",
                Jwt::MissingRequiredClaim(_) => "claims",
                _ => "malformed",
            },
            Self::Type | Self::ForeignHeader => "header",
            Self::UnknownKey => "unknown_key",
            Self::Unvetted(Unvetted::Malformed) => "malformed",
            Self::Unvetted(_) => "unvetted",
            Self::Biscuit(biscuit_auth::error::Token::Format(
                biscuit_auth::error::Format::Signature(_),
            )) => "signature",
            Self::Biscuit(_) => "malformed",
            Self::Twice(_) | Self::User | Self::Time | Self::Saying => "claims",
            Self::Undecided => "undecided",
        }
    }
}

impl Verifier {
    /// # Errors
    /// The key file cannot be read or used; the message says why.
    pub fn load(args: &AuthArgs) -> Result<Self, KeyError> {
        Ok(Self {
            ring: KeyRing::load(&args.auth_keys_file)?,
            args: args.clone(),
        })
    }

    pub fn keys(&self) -> &KeyRing {
        &self.ring
    }

    /// # Errors
    /// Which check failed.
    pub fn verify(&self, token: &str) -> Result<Verified, Refused> {
        if token.len() > TOKEN_MAX {
            return Err(Refused::Length);
        }
        let (biscuit, signer, claims) = match TokenFormat::of(token) {
            TokenFormat::Jwt => {
                let now = jsonwebtoken::get_current_timestamp();
                let (key, claims) = jwt::verify(token, &self.ring, &self.args, now)?;
                (None, &key.signer, claims)
            }
            TokenFormat::Biscuit => {
                let (biscuit, key, claims) = biscuit::verify(token, &self.ring)?;
                (Some(biscuit), &key.signer, claims)
            }
        };
        Ok(Verified {
            claims,
            signer: signer.clone(),
            biscuit,
            judged: Judged::default(),
        })
    }

    /// Whether the key that has verified it, maybe in an earlier reading of the file, verifies it still. `false` also if
    /// that is not known: then it has to be verified anew.
    pub fn still_vouches_for(&self, token: &Verified) -> bool {
        let key_use = match token.biscuit {
            None => KeyUse::Jwt,
            Some(_) => KeyUse::Biscuit,
        };
        self.ring.holds(key_use, &token.signer)
    }
}

impl TokenFormat {
    /// base64url has no dot, so the split is exact: no token is tried as both.
    pub fn of(token: &str) -> Self {
        if token.contains('.') {
            Self::Jwt
        } else {
            Self::Biscuit
        }
    }
}

impl Verified {
    /// Unchecked: only [`super::Policy`] tells what this caller may.
    pub fn caller(&self) -> &Caller {
        &self.claims.caller
    }

    /// Unix seconds, without leeway.
    pub fn expires_at(&self) -> u64 {
        self.claims.expires_at
    }

    /// The issuer's name for the token and all that was made from it, if it has one.
    pub fn token_id(&self) -> Option<&str> {
        self.claims.token_id.as_deref()
    }

    /// Names this token, and what was made from it, but not what it was made from.
    ///
    /// # Panics
    /// Never: every token has one.
    pub fn revocation_id(&self) -> &str {
        let last = self.claims.revocation_ids.last();
        last.expect("a block or what is signed")
    }

    /// Under what it can be taken back.
    pub(super) fn names(&self) -> impl Iterator<Item = (RevocationKind, &str)> {
        let by_token = self.token_id().map(|id| (RevocationKind::TokenId, id));
        let by_block = self.claims.revocation_ids.iter();
        by_token
            .into_iter()
            .chain(by_block.map(|id| (RevocationKind::RevocationId, id.as_str())))
    }

    /// The `kid` of the key that has verified it.
    pub fn kid(&self) -> &str {
        &self.signer.kid
    }

    /// That key's thumbprint (RFC 7638, SHA-256, base64url); none of a shared secret.
    pub fn key_thumbprint(&self) -> Option<&str> {
        self.signer.thumbprint.as_deref()
    }

    pub(super) fn key_roles(&self) -> &Fact {
        &self.signer.roles
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the Biscuit: an unsealed one holds the key to append blocks to it.
        f.debug_struct("Verified")
            .field("caller", &self.claims.caller)
            .field("kid", &self.signer.kid)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
