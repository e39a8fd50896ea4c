//! From the `Authorization` header to a [`Caller`] that may do what it asks. Code behind it never sees a token.

mod keys;
mod refusals;
mod revoked;
mod verified;

use std::sync::Arc;
use std::time::Duration;

use shared::auth::{
    AuthArgs, Caller, Denied, KeyError, KeyProblem, Policy, Refused, Request, TOKEN_MAX, Verified,
    Verifier,
};
use shared::runtime::ops::Check;
use sqlx::mysql::MySqlConnectOptions;
use tokio::sync::watch;
use warp::http::{HeaderMap, header};

use self::keys::KeyWatch;
use self::refusals::Refusals;
pub(crate) use self::revoked::Reading;
use self::revoked::RevocationWatch;
use self::verified::VerifiedTokens;
use crate::config::TokenArgs;
use crate::error::ApiError;
use crate::metrics::Metrics;

/// Lets callers in, and judges what they ask.
#[derive(Debug)]
pub struct Authenticator {
    keys: watch::Receiver<Arc<Verifier>>,
    revoked: watch::Receiver<Reading>,
    policy: Policy,
    verified: VerifiedTokens,
    revocations_max_age: Duration,
    refusals: Refusals,
}

/// A token that was let in. What its bearer may is asked for each request: [`Credential::caller_for`].
#[derive(Debug, Clone)]
pub struct Credential {
    token: Arc<Verified>,
    verified_by: Arc<Verifier>,
    request_id: String,
    authenticator: Arc<Authenticator>,
}

/// The authenticator, and the tasks that keep its keys and its list of revoked tokens up to date.
pub(crate) fn open(
    verifier: Verifier,
    auth: &AuthArgs,
    tokens: &TokenArgs,
    revoked: Reading,
    options: MySqlConnectOptions,
    metrics: &Arc<Metrics>,
) -> (Arc<Authenticator>, KeyWatch, RevocationWatch) {
    let (keys, key_watch) = keys::watch(verifier, auth.clone(), Arc::clone(metrics));
    let (revoked, revocation_watch) = revoked::watch(revoked, options, Arc::clone(metrics));
    let authenticator = Authenticator {
        keys,
        revoked,
        policy: Policy::new(auth),
        verified: VerifiedTokens::new(),
        revocations_max_age: Duration::from_secs(tokens.revocations_max_age_secs),
        refusals: Refusals::new(Arc::clone(metrics)),
    };
    (Arc::new(authenticator), key_watch, revocation_watch)
}

/// The keys to begin with.
///
/// # Errors
/// The key file cannot be read or used, or holds no key; the message says why.
pub fn check(auth: &AuthArgs) -> Result<Verifier, KeyError> {
    let verifier = Verifier::load(auth)?;
    if verifier.keys().is_empty() {
        return Err(KeyError {
            path: auth.auth_keys_file.clone(),
            problem: KeyProblem::Empty,
        });
    }
    Ok(verifier)
}

impl Authenticator {
    /// Lets the bearer of a request's token in.
    ///
    /// # Errors
    /// [`ApiError::Unauthenticated`] without a token, [`ApiError::InvalidToken`] whichever check failed: the log says which,
    /// without the token.
    pub fn authenticate(
        self: &Arc<Self>,
        headers: &HeaderMap,
        request_id: &str,
    ) -> Result<Credential, ApiError> {
        let token = match bearer(headers) {
            Ok(token) => token,
            Err(reason) => {
                self.refusals.tell(request_id, reason.code(), &reason);
                return Err(match reason {
                    NoBearer::Missing => ApiError::Unauthenticated,
                    NoBearer::Malformed => ApiError::InvalidToken,
                });
            }
        };
        let (token, verified_by) = self
            .verify(token)
            .map_err(|refused| self.refuse(request_id, refused))?;
        Ok(Credential {
            token,
            verified_by,
            request_id: request_id.to_owned(),
            authenticator: Arc::clone(self),
        })
    }

    fn verify(&self, token: &str) -> Result<(Arc<Verified>, Arc<Verifier>), Refusal> {
        // Not held across the check: the lock belongs to whoever brings new keys.
        let verifier = Arc::clone(&self.keys.borrow());
        let verified = self.verified.of(token, &verifier, |token| {
            let verified = verifier.verify(token).map_err(Refusal::Token)?;
            // Also judged for each request. Here it keeps what is not for us from memory and database.
            self.policy.honors(&verified).map_err(Refusal::Denied)?;
            Ok(verified)
        })?;
        // Also judged for each request. Here it keeps whoever stole a token from using up its owner's rate.
        if self.is_revoked(&verified)? {
            return Err(Refusal::Revoked);
        }
        Ok((verified, verifier))
    }

    /// Whether the list knows it, as it is now.
    fn is_revoked(&self, token: &Verified) -> Result<bool, Refusal> {
        let reading = self.revoked.borrow();
        if reading.is_fresh(self.revocations_max_age) {
            Ok(reading.list.contains(token))
        } else {
            Err(Refusal::RevocationsUnknown)
        }
    }

    /// Told to operators as it is, and to the caller as what can be done about it.
    fn refuse(&self, request_id: &str, refusal: Refusal) -> ApiError {
        self.refusals.tell(request_id, refusal.code(), &refusal);
        match refusal {
            Refusal::RevocationsUnknown => ApiError::RevocationsUnknown,
            Refusal::Token(Refused::Undecided) | Refusal::Denied(Denied::Undecided) => {
                ApiError::Undecided
            }
            Refusal::Token(_) | Refusal::Revoked | Refusal::Denied(Denied::Token(_)) => {
                ApiError::InvalidToken
            }
            Refusal::Denied(Denied::Forbidden) => ApiError::Forbidden,
            Refusal::Denied(Denied::NotYours) => ApiError::NotFound,
        }
    }

    /// For `/readyz?verbose`.
    pub(crate) fn checks(&self) -> Vec<Check> {
        vec![self.revoked.borrow().check(self.revocations_max_age)]
    }
}

impl Credential {
    /// Who its issuer says its bearer is.
    pub(crate) fn user(&self) -> i64 {
        self.token.caller().user
    }

    /// The caller, if the token is not revoked and the policy allows this to it.
    ///
    /// # Errors
    /// [`ApiError::InvalidToken`] (revoked, not in time, not for us), [`ApiError::Forbidden`], [`ApiError::NotFound`] for
    /// what is somebody else's, [`ApiError::Undecided`], and [`ApiError::RevocationsUnknown`] while nobody can tell which
    /// tokens are revoked.
    pub fn caller_for(&self, request: &Request) -> Result<&Caller, ApiError> {
        self.decide(request)
            .map_err(|refusal| self.authenticator.refuse(&self.request_id, refusal))
    }

    /// Whether it has to be let in anew: the key that verified it is gone, or the keys were read anew and it is not known.
    pub(crate) fn is_outdated(&self) -> bool {
        let keys = self.authenticator.keys.borrow();
        !Arc::ptr_eq(&self.verified_by, &keys) && !keys.still_vouches_for(&self.token)
    }

    /// As [`Credential::caller_for`], of one that was let in and has only grown older: that it ends one day is no refusal
    /// to be told of. `None` while nobody can tell.
    pub(crate) fn still_allows(&self, request: &Request) -> Option<bool> {
        match self.decide(request) {
            Ok(_) => Some(true),
            Err(Refusal::RevocationsUnknown | Refusal::Denied(Denied::Undecided)) => None,
            Err(_) => Some(false),
        }
    }

    fn decide(&self, request: &Request) -> Result<&Caller, Refusal> {
        if self.authenticator.is_revoked(&self.token)? {
            return Err(Refusal::Revoked);
        }
        let policy = &self.authenticator.policy;
        policy.decide(&self.token, request).map_err(Refusal::Denied)
    }
}

/// Why somebody is not let in, or not allowed what they ask.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Token(Refused),
    #[error("it is revoked")]
    Revoked,
    #[error("the list of revoked tokens is too old")]
    RevocationsUnknown,
    #[error("{0}")]
    Denied(Denied),
}

impl Refusal {
    /// A label for metrics.
    fn code(&self) -> &'static str {
        match self {
            Self::Token(refused) => refused.code(),
            Self::Revoked => "revoked",
            Self::RevocationsUnknown => "revocations_unknown",
            Self::Denied(denied) => denied.code(),
        }
    }
}

/// Why there is no token to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBearer {
    #[error("no Authorization header")]
    Missing,
    #[error(
        "not exactly one `Authorization: Bearer` with a token of at most {TOKEN_MAX} characters"
    )]
    Malformed,
}

impl NoBearer {
    fn code(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
        }
    }
}

/// The token of the one `Authorization: Bearer` header there may be. Nothing else carries one: no query, no cookie.
///
/// # Errors
/// There is none, or more than one.
pub fn bearer(headers: &HeaderMap) -> Result<&str, NoBearer> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(NoBearer::Missing)?;
    if values.next().is_some() {
        return Err(NoBearer::Malformed);
    }
    let value = value.to_str().map_err(|_| NoBearer::Malformed)?;
    let (scheme, token) = value.split_once(' ').ok_or(NoBearer::Malformed)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && (1..=TOKEN_MAX).contains(&token.len()) {
        Ok(token)
    } else {
        Err(NoBearer::Malformed)
    }
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
        assert_eq!(with(&["Bearer abc"]), Ok("abc".to_owned()));
        assert_eq!(with(&["bearer  abc"]), Ok("abc".to_owned()));
        let long = format!("Bearer {}", "a".repeat(TOKEN_MAX + 1));
        for bad in [
            &["Basic abc"][..],
            &["Bearer"],
            &["Bearer "],
            &["Bearer a", "Bearer b"],
            &[&long],
        ] {
            assert_eq!(with(bad), Err(NoBearer::Malformed), "{bad:?}");
        }
        assert_eq!(with(&[]), Err(NoBearer::Missing));
    }
}
