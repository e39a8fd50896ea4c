//! From the `Authorization` header to a [`Caller`]. Code behind it never sees a token.

mod verified;

use shared::auth::{AuthArgs, Caller, KeyError, TOKEN_MAX, Verifier};
use warp::http::{HeaderMap, header};

use self::verified::VerifiedTokens;
use crate::error::ApiError;

/// Verifies bearer tokens.
#[derive(Debug)]
pub struct Authenticator {
    jwt: Verifier,
    verified: VerifiedTokens,
}

impl Authenticator {
    /// # Errors
    /// The key file cannot be read or holds no Ed25519 public key; the message says how to make one.
    pub fn load(args: &AuthArgs) -> Result<Self, KeyError> {
        Ok(Self {
            jwt: Verifier::load(args)?,
            verified: VerifiedTokens::new(),
        })
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// [`ApiError::Unauthenticated`], whichever check failed; the log says which, without the token.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let token = bearer(headers).ok_or(ApiError::Unauthenticated)?;
        self.verified
            .caller(token, |token| self.jwt.verify(token))
            .map_err(|reason| {
                tracing::debug!(%reason, "token refused");
                ApiError::Unauthenticated
            })
    }
}

/// The token of the one `Authorization: Bearer` header there may be.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= TOKEN_MAX)
        .then_some(token)
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    #[test]
    fn one_bearer_header_is_needed() {
        let with = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = HeaderValue::from_str(value).expect("visible ASCII");
                headers.append(header::AUTHORIZATION, value);
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with(&["Bearer abc"]), Some("abc".to_owned()));
        assert_eq!(with(&["bearer  abc"]), Some("abc".to_owned()));
        let long = format!("Bearer {}", "a".repeat(TOKEN_MAX + 1));
        for bad in [
            &["Basic abc"][..],
            &["Bearer"],
            &["Bearer "],
            &["Bearer a", "Bearer b"],
            &[&long],
            &[],
        ] {
            assert_eq!(with(bad), None, "{bad:?}");
        }
    }
}
