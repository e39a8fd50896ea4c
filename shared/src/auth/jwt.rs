//! JSON Web Tokens: one algorithm per key, and every claim and header that jsonwebtoken does not check by default.

use std::time::Duration;

use jsonwebtoken::{Header, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::key_ring::{JwtKey, KeyRing};
use super::verifier::{Claims, Refused};
use super::{AuthArgs, Caller, Role};

/// The widest id that the list of revoked tokens holds.
const TOKEN_ID_MAX: usize = 128;

/// The claims that identify a caller. A shop's login issues `user_id`, an identity provider `sub`.
#[derive(Deserialize)]
struct Wire {
    /// Seconds since 1970; may have a fraction (RFC 7519, "NumericDate").
    exp: f64,
    iat: Option<f64>,
    user_id: Option<UserId>,
    sub: Option<UserId>,
    role: Role,
    /// Not a reason to refuse, whatever it is.
    jti: Option<Value>,
}

/// Shops write ids as numbers, identity providers as strings.
#[derive(Deserialize)]
#[serde(untagged)]
enum UserId {
    Number(i64),
    Text(String),
}

/// What a JWT says whose signature and times are good at `now` (Unix seconds), and the key that says so.
pub(super) fn verify<'r>(
    token: &str,
    ring: &'r KeyRing,
    args: &AuthArgs,
    now: u64,
) -> Result<(&'r JwtKey, Claims), Refused> {
    let header = decode_header(token)?;
    vet_header(&header)?;
    let key = ring.jwt(header.kid.as_deref())?;
    let wire = decode::<Wire>(token, &key.key, &validation(key, args))?.claims;
    let token_id = wire.jti.as_ref().and_then(Value::as_str);
    let claims = Claims {
        caller: Caller {
            user: wire.user()?,
            role: wire.role,
        },
        // Who does not say when, says now.
        issued_at: wire.iat.map_or(now, whole_seconds),
        expires_at: whole_seconds(wire.exp),
        token_id: token_id.filter(|id| is_token_id(id)).map(str::to_owned),
        revocation_ids: vec![jwt_revocation_id(token)],
    };
    Ok((key, claims))
}

/// Names this token and no other: SHA-256 over what is signed, in hexadecimal digits. The signature is left out,
/// because those of ES256 have two spellings.
pub fn jwt_revocation_id(token: &str) -> String {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    hex::encode(Sha256::digest(signed))
}

fn vet_header(header: &Header) -> Result<(), Refused> {
    if !header
        .typ
        .as_deref()
        .is_none_or(|typ| ["JWT", "at+jwt"].contains(&typ))
    {
        return Err(Refused::Type);
    }
    // A critical extension that we do not know must not be ignored (RFC 7515, 4.1.11); a key that the token brings
    // along proves nothing.
    if header.jku.is_some()
        || header.jwk.is_some()
        || header.x5u.is_some()
        || header.x5c.is_some()
        || header.crit.is_some()
    {
        return Err(Refused::ForeignHeader);
    }
    Ok(())
}

/// jsonwebtoken accepts a missing `aud` or `iss`, a future `nbf` and 60 s of leeway unless told otherwise.
fn validation(key: &JwtKey, args: &AuthArgs) -> Validation {
    let mut validation = Validation::new(key.algorithm);
    validation.set_audience(&[&args.auth_audience]);
    validation.set_issuer(&[&args.auth_issuer]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.validate_nbf = true;
    validation.leeway = args.auth_leeway_secs;
    validation
}

/// Before 1970 is 1970. What no clock reaches stays out of reach: a beginning there must not become one long ago.
fn whole_seconds(numeric_date: f64) -> u64 {
    if numeric_date <= 0.0 {
        return 0;
    }
    Duration::try_from_secs_f64(numeric_date).map_or(u64::MAX, |since| since.as_secs())
}

/// Whether a token can be named by this in the list of revoked ones; otherwise it has its revocation id only.
pub fn is_token_id(id: &str) -> bool {
    (1..=TOKEN_ID_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Wire {
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
            // As a number is written, so that no two texts are one customer.
            Self::Text(text) => text.parse().ok().filter(|id: &i64| id.to_string() == *text),
        }
    }
}

#[cfg(test)]
mod tests;
