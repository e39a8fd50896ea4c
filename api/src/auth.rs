//! From the `Authorization` header to a [`Caller`]. Code behind it never sees a token.

mod jwt;
mod verified;

use shared::actor::{Actor, ActorType};
use shared::ids::CustomerId;
use warp::http::{HeaderMap, header};

use self::verified::VerifiedTokens;
use crate::config::AuthArgs;
use crate::error::{ApiError, StartError};

/// Who is asking, once the token was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub user: i64,
    pub role: Role,
}

/// What a caller may be. Auditors read the audit trail and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Customer,
    Admin,
    Auditor,
}

impl Caller {
    /// The customer that this caller is.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] for every other role.
    pub fn as_customer(&self) -> Result<CustomerId, ApiError> {
        match self.role {
            Role::Customer => Ok(CustomerId(self.user)),
            Role::Admin | Role::Auditor => Err(ApiError::Forbidden),
        }
    }

    /// # Errors
    /// [`ApiError::Forbidden`] unless the caller is an admin.
    pub fn require_admin(&self) -> Result<(), ApiError> {
        match self.role {
            Role::Admin => Ok(()),
            Role::Customer | Role::Auditor => Err(ApiError::Forbidden),
        }
    }

    /// # Errors
    /// [`ApiError::Forbidden`] for a role that sees no returns at all.
    pub fn require_reader(&self) -> Result<(), ApiError> {
        match self.role {
            Role::Customer | Role::Admin => Ok(()),
            Role::Auditor => Err(ApiError::Forbidden),
        }
    }

    /// Whether the caller may see what belongs to `owner`.
    pub fn may_read(&self, owner: CustomerId) -> bool {
        match self.role {
            Role::Admin => true,
            Role::Customer => owner == CustomerId(self.user),
            Role::Auditor => false,
        }
    }

    /// This caller in the audit trail.
    pub fn actor(&self) -> Actor {
        let kind = match self.role {
            Role::Customer => ActorType::Customer,
            Role::Admin | Role::Auditor => ActorType::Admin,
        };
        Actor {
            kind,
            id: self.user.to_string(),
        }
    }
}

/// The longest token that is looked at.
const TOKEN_MAX: usize = 4096;

/// Verifies bearer tokens.
#[derive(Debug)]
pub struct Authenticator {
    jwt: jwt::Verifier,
    verified: VerifiedTokens,
}

impl Authenticator {
    /// # Errors
    /// The key file cannot be read or holds no Ed25519 public key; the message says how to make one.
    pub fn load(args: &AuthArgs) -> Result<Self, StartError> {
        Ok(Self {
            jwt: jwt::Verifier::load(args)?,
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
