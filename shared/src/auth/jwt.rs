//! JSON Web Tokens: one algorithm per key, and every claim and header that jsonwebtoken does not check by default.

use std::time::Duration;

use jsonwebtoken::{Header, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

use super::key_ring::{JwtKey, KeyRing};
use super::revocation::{is_token_id, jwt_revocation_id};
use super::token::{Claims, TokenError};
use super::{AuthArgs, Caller, Role};

/// The claims as sent. The login of a shop issues `user_id`, an identity provider `sub`.
#[derive(Deserialize)]
struct JwtClaims {
    /// Seconds since 1970; may have a fraction (RFC 7519, "NumericDate").
    exp: f64,
    iat: Option<f64>,
    user_id: Option<UserId>,
    sub: Option<UserId>,
    role: Role,
    /// Any value is accepted; see [`is_token_id`].
    jti: Option<Value>,
}

/// Shops write ids as numbers, identity providers as strings.
#[derive(Deserialize)]
#[serde(untagged)]
enum UserId {
    Number(i64),
    Text(String),
}

/// The claims of a JWT whose signature and times are good at `now` (Unix seconds), and the key that verified it.
pub(super) fn verify<'r>(
    token: &str,
    ring: &'r KeyRing,
    args: &AuthArgs,
    now: u64,
) -> Result<(&'r JwtKey, Claims), TokenError> {
    let header = decode_header(token)?;
    check_header(&header)?;
    let key = ring.jwt(header.kid.as_deref());
    let key = key.ok_or(TokenError::UnknownKey)?;
    let sent = decode::<JwtClaims>(token, &key.key, &validation(key, args))?.claims;
    let token_id = sent.jti.as_ref().and_then(Value::as_str);
    let claims = Claims {
        caller: Caller {
            user: sent.user()?,
            role: sent.role,
            issuer: key.signer.issuer.clone(),
        },
        // A token without `iat` counts as issued now.
        issued_at: sent.iat.map_or(now, whole_seconds),
        expires_at: whole_seconds(sent.exp),
        token_id: token_id.filter(|id| is_token_id(id)).map(str::to_owned),
        revocation_ids: vec![jwt_revocation_id(token)],
    };
    Ok((key, claims))
}

fn check_header(header: &Header) -> Result<(), TokenError> {
    if !header.typ.as_deref().is_none_or(is_accepted_type) {
        return Err(TokenError::Type);
    }
    // An unknown critical extension must not be ignored (RFC 7515, 4.1.11), and a key inside the token proves nothing.
    if header.jku.is_some()
        || header.jwk.is_some()
        || header.x5u.is_some()
        || header.x5c.is_some()
        || header.crit.is_some()
    {
        return Err(TokenError::ForeignHeader);
    }
    Ok(())
}

/// A media type, so its case does not matter, and `application/` may be left out (RFC 7515, 4.1.9).
fn is_accepted_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    let subtype = typ.strip_prefix("application/").unwrap_or(&typ);
    ["jwt", "at+jwt"].contains(&subtype)
}

/// By default jsonwebtoken accepts a missing `aud` or `iss`, a future `nbf`, and 60 s of leeway.
fn validation(key: &JwtKey, args: &AuthArgs) -> Validation {
    let mut validation = Validation::new(key.algorithm);
    validation.set_audience(&[&args.auth_audience]);
    validation.set_issuer(&[key.signer.issuer(args)]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.validate_nbf = true;
    validation.leeway = args.auth_leeway_secs;
    validation
}

/// A time before 1970 becomes 1970. A time too large for a clock stays too large: as an `iat` it must not become one in
/// the past.
fn whole_seconds(numeric_date: f64) -> u64 {
    if numeric_date <= 0.0 {
        return 0;
    }
    Duration::try_from_secs_f64(numeric_date).map_or(u64::MAX, |since| since.as_secs())
}

impl JwtClaims {
    fn user(&self) -> Result<i64, TokenError> {
        let number = |id: &Option<UserId>| id.as_ref().and_then(UserId::number);
        let (user_id, sub) = (number(&self.user_id), number(&self.sub));
        // A provider's opaque `sub` may stand beside the shop's `user_id`. If both are numbers, they must be equal.
        if user_id.zip(sub).is_some_and(|(a, b)| a != b) {
            return Err(TokenError::User);
        }
        match if self.user_id.is_some() { user_id } else { sub } {
            Some(id) if id > 0 => Ok(id),
            Some(_) | None => Err(TokenError::User),
        }
    }
}

impl UserId {
    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(id) => Some(*id),
            // Only the canonical text of the number: no two texts may name one customer.
            Self::Text(text) => text.parse().ok().filter(|id: &i64| id.to_string() == *text),
        }
    }
}

#[cfg(test)]
mod tests;
