//! A verified token, and why a token may be refused.

use std::fmt;
use std::sync::Arc;

use biscuit_auth::Biscuit;
use biscuit_auth::builder::Fact;

use super::Caller;
use super::decision_cache::DecisionCache;
use super::key_ring::Signer;
use super::structure::StructureError;

/// The highest AUTH_TOKEN_MAX_BYTES: half of what the server reads as the headers of a request.
pub const TOKEN_MAX: usize = 16 * 1024;

/// A token with a good signature, and what it says. The validity times, the audience and revocation are checked again
/// for each request: by [`super::Policy`] and [`super::RevokedTokens`].
pub struct Verified {
    pub(super) claims: Claims,
    pub(super) signer: Signer,
    /// The token's own Datalog, if it is a Biscuit.
    pub(super) biscuit: Option<Biscuit>,
    pub(super) decisions: DecisionCache,
}

/// What the issuer of a token states.
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

/// Whose limits a token uses up: rates, and how many streams and exports are open. All tokens of a user are one holder.
/// All tokens that were narrowed from them are another one, so a user who hands some out keeps the own limits whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// As in [`Caller`]: two issuers may give two users the same number.
    issuer: Option<Arc<str>>,
    user: i64,
    is_narrowed: bool,
}

impl Verified {
    /// See [`Holder`].
    pub fn holder(&self) -> Holder {
        let Caller { user, issuer, .. } = &self.claims.caller;
        Holder {
            issuer: issuer.clone(),
            user: *user,
            // Each appended block has an id.
            is_narrowed: self.claims.revocation_ids.len() > 1,
        }
    }

    /// The caller, before any decision: only [`super::Policy`] decides what this caller may do.
    pub fn caller(&self) -> &Caller {
        &self.claims.caller
    }

    /// Unix seconds, without leeway.
    pub fn expires_at(&self) -> u64 {
        self.claims.expires_at
    }

    /// The issuer's id for the token and for everything derived from it, if the token has one.
    pub fn token_id(&self) -> Option<&str> {
        self.claims.token_id.as_deref()
    }

    /// Names this token and everything derived from it, but not the token that it was derived from.
    ///
    /// # Panics
    /// Never: every token has one.
    pub fn revocation_id(&self) -> &str {
        let last = self.claims.revocation_ids.last();
        last.expect("one for each block, or the one of a JWT")
    }

    /// The `kid` of the key that verified it.
    pub fn kid(&self) -> &str {
        &self.signer.kid
    }

    /// The thumbprint of that key (RFC 7638, SHA-256, base64url). A shared secret has none.
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

/// Why a token was refused. It never repeats the token. It is for logs and for operators, not for remote clients.
#[derive(thiserror::Error)]
pub enum TokenError {
    #[error("longer than AUTH_TOKEN_MAX_BYTES")]
    Length,
    #[error("malformed, expired, or not verifiable: {}", jwt_reason(.0))]
    Jwt(jsonwebtoken::errors::Error),
    #[error("typ is not JWT or at+jwt, with or without application/")]
    Type,
    #[error("the header has crit, jku, jwk, x5u or x5c")]
    ForeignHeader,
    #[error("no key has its kid")]
    UnknownKey,
    #[error("{0}")]
    Structure(#[from] StructureError),
    #[error("malformed or not verifiable: {}", biscuit_reason(.0))]
    Biscuit(biscuit_auth::error::Token),
    #[error("it is not in the canonical encoding")]
    NotCanonical,
    #[error("{0} is stated more than once")]
    Repeated(&'static str),
    #[error("user_id and sub (user, role) are missing, differ, or are not a positive number")]
    User,
    #[error("issued_at or expires_at is missing")]
    Time,
    #[error("the issuer states a fact that an issuer may not state")]
    UnexpectedFact,
    #[error("it took too long to read")]
    Undecided,
}

/// Without the errors of the libraries, see `jwt_reason`.
impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenError({self})")
    }
}

impl From<jsonwebtoken::errors::Error> for TokenError {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        Self::Jwt(error)
    }
}

/// The library's own text quotes the JSON, for example an unknown `alg`, before any signature was checked.
fn jwt_reason(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind as Jwt;
    match error.kind() {
        Jwt::InvalidSignature => "the signature",
        Jwt::InvalidAlgorithm => "alg is not the algorithm of its key",
        Jwt::ExpiredSignature => "exp is in the past",
        Jwt::ImmatureSignature => "nbf is in the future",
        Jwt::InvalidAudience => "aud",
        Jwt::InvalidIssuer => "iss",
        Jwt::MissingRequiredClaim(_) => "exp, iss or aud is missing",
        Jwt::Json(_) => "a header or a claim has the wrong type",
        _ => "the format",
    }
}

/// The library's own text may quote a check, which a holder has written.
fn biscuit_reason(error: &biscuit_auth::error::Token) -> &'static str {
    match error {
        biscuit_auth::error::Token::Format(biscuit_auth::error::Format::Signature(_)) => {
            "the signature"
        }
        biscuit_auth::error::Token::Format(_) => "the format",
        _ => "its Datalog",
    }
}

impl TokenError {
    /// A label for metrics.
    pub fn code(&self) -> &'static str {
        use jsonwebtoken::errors::ErrorKind as Jwt;
        match self {
            Self::Length | Self::NotCanonical => "malformed",
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
            Self::Structure(StructureError::Malformed) => "malformed",
            Self::Structure(_) => "unvetted",
            Self::Biscuit(biscuit_auth::error::Token::Format(
                biscuit_auth::error::Format::Signature(_),
            )) => "signature",
            Self::Biscuit(_) => "malformed",
            Self::Repeated(_) | Self::User | Self::Time | Self::UnexpectedFact => "claims",
            Self::Undecided => "undecided",
        }
    }
}
