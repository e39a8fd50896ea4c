//! JSON Web Tokens: EdDSA with one key, and every claim that jsonwebtoken does not check by default.

use std::fs;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::verified::Verified;
use super::{Caller, Role};
use crate::config::AuthArgs;
use crate::error::StartError;

/// Clocks of issuer and api may differ by this much.
const LEEWAY_SECS: u64 = 30;

/// Checks a token's signature and claims.
pub(super) struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

/// Without the key: `Debug` of key material has leaked secrets before.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

/// The claims that identify a caller. A shop's login issues `user_id`, an identity provider `sub`.
#[derive(Deserialize)]
struct Claims {
    /// Seconds since 1970; may have a fraction (RFC 7519, "NumericDate").
    exp: f64,
    user_id: Option<UserId>,
    sub: Option<UserId>,
    role: Role,
}

/// Shops write ids as numbers, identity providers as strings.
#[derive(Deserialize)]
#[serde(untagged)]
enum UserId {
    Number(i64),
    Text(String),
}

/// Why a token was refused; for the log only.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("malformed or not verifiable: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    #[error("typ is not JWT or at+jwt")]
    Type,
    #[error("the header carries crit, jku, jwk, x5u or x5c")]
    ForeignHeader,
    #[error("user_id and sub are missing, differ, or are no positive number")]
    User,
}

impl Verifier {
    pub(super) fn load(args: &AuthArgs) -> Result<Self, StartError> {
        let path = &args.jwt_public_key_file;
        let key = fs::read(path)
            .map_err(|error| error.to_string())
            .and_then(|pem| DecodingKey::from_ed_pem(&pem).map_err(|error| error.to_string()))
            .map_err(|reason| StartError::Key {
                path: path.clone(),
                reason,
            })?;
        Ok(Self {
            key,
            validation: validation(args),
        })
    }

    pub(super) fn verify(&self, token: &str) -> Result<Verified, Refused> {
        let header = decode_header(token)?;
        if !header
            .typ
            .as_deref()
            .is_none_or(|typ| ["JWT", "at+jwt"].contains(&typ))
        {
            return Err(Refused::Type);
        }
        // A critical extension that we do not know must not be ignored (RFC 7515, 4.1.11); a key that the token
        // brings along proves nothing.
        if header.jku.is_some()
            || header.jwk.is_some()
            || header.x5u.is_some()
            || header.x5c.is_some()
            || header.crit.is_some()
        {
            return Err(Refused::ForeignHeader);
        }
        let claims = decode::<Claims>(token, &self.key, &self.validation)?.claims;
        // What no clock reaches is verified each time.
        let expiry = Duration::try_from_secs_f64(claims.exp).unwrap_or_default();
        Ok(Verified {
            caller: Caller {
                user: claims.user()?,
                role: claims.role,
            },
            expires: expiry.as_secs().saturating_add(LEEWAY_SECS),
        })
    }
}

/// jsonwebtoken accepts a missing `aud` or `iss`, a future `nbf` and 60 s of leeway unless told otherwise.
fn validation(args: &AuthArgs) -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[&args.jwt_audience]);
    validation.set_issuer(&[&args.jwt_issuer]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.validate_nbf = true;
    validation.leeway = LEEWAY_SECS;
    validation
}

impl Claims {
    fn user(&self) -> Result<i64, Refused> {
        let number = |id: &Option<UserId>| id.as_ref().and_then(UserId::number);
        let (user_id, sub) = (number(&self.user_id), number(&self.sub));
        // A provider's opaque `sub` may stand beside the shop's number; two numbers must agree.
        if user_id.zip(sub).is_some_and(|(a, b)| a != b) {
            return Err(Refused::User);
        }
        match if self.user_id.is_some() { user_id } else { sub } {
            Some(id) if id > 0 => Ok(id),
            Some(_) | None => Err(Refused::User),
        }
    }
}

impl UserId {
    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(id) => Some(*id),
            Self::Text(text) => text.parse().ok(),
        }
    }
}
