//! Authentication and authorization: from the `Authorization` header to a [`Caller`] that may do what it requests.
//!
//! Code outside this module never sees a token.

mod bearer;
mod keys;
mod refusals;
mod revocations;
mod verified;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use shared::auth::{
    AuthArgs, Caller, Denied, Holder, KeyError, KeyProblem, Policy, Request, Role, TokenError,
    Verified, Verifier,
};
use shared::runtime::db::Database;
use shared::runtime::ops::Check;
use tokio::sync::watch;
use warp::http::HeaderMap;

pub use self::bearer::{NoBearer, bearer};
use self::keys::KeyWatch;
use self::refusals::Refusals;
pub(crate) use self::refusals::RequestSource;
use self::revocations::RevocationWatch;
pub(crate) use self::revocations::Snapshot;
use self::verified::VerifiedTokens;
use crate::error::ApiError;
use crate::metrics::Metrics;

/// Revoked tokens.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// Seconds for which the api relies on the list of revoked tokens while MySQL does not respond (the list is read
    /// every second). Afterwards callers get 503. Too low refuses all callers in a short outage; too high accepts a
    /// revoked token for as long.
    #[arg(long, env = "REVOCATIONS_MAX_AGE_SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub revocations_max_age_secs: u64,
}

/// Authenticates tokens, and checks what their bearers may do.
#[derive(Debug)]
pub(crate) struct Authenticator {
    keys: watch::Receiver<Arc<Verifier>>,
    revocations: watch::Receiver<Snapshot>,
    policy: Policy,
    token_max: usize,
    verified: VerifiedTokens,
    revocations_max_age: Duration,
    refusals: Refusals,
}

/// An authenticated token. Its permissions are checked for each request: [`Credential::caller_for`].
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    token: Arc<Verified>,
    verified_by: Arc<Verifier>,
    source: Arc<RequestSource>,
    authenticator: Arc<Authenticator>,
}

/// What allows a long response, such as a stream or an export. It is checked again while the response goes on.
#[derive(Debug)]
pub(crate) struct Grant {
    credential: Credential,
    request: Request,
}

/// The authenticator, and the tasks that keep its keys and its list of revoked tokens up to date.
pub(crate) fn authenticator(
    verifier: Verifier,
    auth: &AuthArgs,
    tokens: &TokenArgs,
    revocations: Snapshot,
    db: &Database,
    metrics: &Arc<Metrics>,
) -> (Arc<Authenticator>, KeyWatch, RevocationWatch) {
    let (keys, key_watch) = keys::watch(verifier, auth.clone(), Arc::clone(metrics));
    let (revocations, revocation_watch) = revocations::watch(revocations, db, Arc::clone(metrics));
    let authenticator = Authenticator {
        keys,
        revocations,
        policy: Policy::new(auth),
        token_max: auth.token_max(),
        verified: VerifiedTokens::new(),
        revocations_max_age: Duration::from_secs(tokens.revocations_max_age_secs),
        refusals: Refusals::new(Arc::clone(metrics)),
    };
    (Arc::new(authenticator), key_watch, revocation_watch)
}

/// Loads the keys at the start.
///
/// # Errors
/// The key file cannot be read or used, or holds no key; the message says why.
pub(crate) fn load_keys(auth: &AuthArgs) -> Result<Verifier, KeyError> {
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
    /// Authenticates the bearer token of a request.
    ///
    /// # Errors
    /// [`ApiError::Unauthenticated`] without a token, [`ApiError::InvalidToken`] for every failed check: only the log
    /// says which, without the token.
    pub(crate) fn authenticate(
        self: &Arc<Self>,
        headers: &HeaderMap,
        source: &Arc<RequestSource>,
    ) -> Result<Credential, ApiError> {
        let token = bearer(headers, self.token_max).map_err(|reason| {
            self.refusals.report(source, reason.code(), &reason);
            match reason {
                NoBearer::Missing => ApiError::Unauthenticated,
                NoBearer::Malformed => ApiError::InvalidToken,
            }
        })?;
        let (token, verified_by) = self
            .verify(token)
            .map_err(|refusal| self.refuse(source, refusal))?;
        Ok(Credential {
            token,
            verified_by,
            source: Arc::clone(source),
            authenticator: Arc::clone(self),
        })
    }

    fn verify(&self, token: &str) -> Result<(Arc<Verified>, Arc<Verifier>), Refusal> {
        // Cloned, because a lock held during the check would block the task that loads new keys.
        let verifier = Arc::clone(&self.keys.borrow());
        let verified = self.verified.get_or_verify(token, &verifier, |token| {
            let verified = verifier.verify(token).map_err(Refusal::Token)?;
            // Also checked for each request. Here it keeps tokens for another audience out of the cache.
            self.policy.accepts(&verified).map_err(Refusal::Denied)?;
            Ok(verified)
        })?;
        // Both are also part of each decision. Here they keep a thief from using up the rate limit of the token's owner.
        if self.is_revoked(&verified)? {
            return Err(Refusal::Revoked);
        }
        if !self.policy.is_current(&verified) {
            return Err(Refusal::OutOfTime);
        }
        Ok((verified, verifier))
    }

    fn is_revoked(&self, token: &Verified) -> Result<bool, Refusal> {
        let snapshot = self.revocations.borrow();
        if snapshot.is_fresh(self.revocations_max_age) {
            Ok(snapshot.list.contains(token))
        } else {
            Err(Refusal::RevocationsUnknown)
        }
    }

    /// Operators get the exact reason; the caller gets what it can do about it.
    fn refuse(&self, source: &RequestSource, refusal: Refusal) -> ApiError {
        // An outage refuses every request, and has lines of its own in the log.
        if matches!(refusal, Refusal::RevocationsUnknown) {
            self.refusals.count(refusal.code());
        } else {
            self.refusals.report(source, refusal.code(), &refusal);
        }
        match refusal {
            Refusal::RevocationsUnknown => ApiError::RevocationsUnknown,
            Refusal::Token(TokenError::Undecided) | Refusal::Denied(Denied::Undecided) => {
                ApiError::Undecided
            }
            Refusal::Token(_)
            | Refusal::Revoked
            | Refusal::OutOfTime
            | Refusal::Denied(Denied::Token(_)) => ApiError::InvalidToken,
            Refusal::Denied(Denied::Forbidden) => ApiError::Forbidden,
            Refusal::Denied(Denied::NotYours) => ApiError::NotFound,
        }
    }

    /// For `/readyz?verbose`.
    pub(crate) fn checks(&self) -> Vec<Check> {
        vec![self.revocations.borrow().check(self.revocations_max_age)]
    }
}

impl Credential {
    /// Whose limits the token uses up.
    pub(crate) fn holder(&self) -> Holder {
        self.token.holder()
    }

    /// The role that the token states. It decides nothing by itself: it says for which request the policy is asked.
    pub(crate) fn role(&self) -> Role {
        self.token.caller().role
    }

    /// The caller, if the token is not revoked and the policy allows this request.
    ///
    /// # Errors
    /// [`ApiError::InvalidToken`] (revoked, expired, for another audience), [`ApiError::Forbidden`],
    /// [`ApiError::NotFound`] for another customer's resource, [`ApiError::Undecided`], and
    /// [`ApiError::RevocationsUnknown`] while the list of revoked tokens is too old.
    pub(crate) fn caller_for(&self, request: &Request) -> Result<&Caller, ApiError> {
        self.decide(request)
            .map_err(|refusal| self.authenticator.refuse(&self.source, refusal))
    }

    /// For a long response to a request that [`Credential::caller_for`] has allowed.
    pub(crate) fn grant(self, request: Request) -> Grant {
        Grant {
            credential: self,
            request,
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

impl Grant {
    /// See [`Credential::holder`].
    pub(crate) fn holder(&self) -> Holder {
        self.credential.holder()
    }

    /// Whether the client must authenticate again: the keys were reloaded, and the token's key is not among them.
    pub(crate) fn is_outdated(&self) -> bool {
        let credential = &self.credential;
        let keys = credential.authenticator.keys.borrow();
        !Arc::ptr_eq(&credential.verified_by, &keys) && !keys.still_trusts(&credential.token)
    }

    /// Whether a response that is no stream may go on now. A stream waits while this is not known.
    pub(crate) fn holds(&self) -> bool {
        !self.is_outdated() && self.still_holds() == Some(true)
    }

    /// Whether the policy still allows the request. `None` while the list of revoked tokens is too old, or if the policy
    /// was not evaluated in time. Not reported as a refusal: tokens are meant to expire.
    pub(crate) fn still_holds(&self) -> Option<bool> {
        match self.credential.decide(&self.request) {
            Ok(_) => Some(true),
            Err(Refusal::RevocationsUnknown | Refusal::Denied(Denied::Undecided)) => None,
            Err(_) => Some(false),
        }
    }
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Token(TokenError),
    #[error("the token is revoked")]
    Revoked,
    #[error("the token has expired since it was first seen, or the clock went back")]
    OutOfTime,
    #[error("the list of revoked tokens is too old")]
    RevocationsUnknown,
    #[error("{0}")]
    Denied(Denied),
}

impl Refusal {
    /// A metric label.
    fn code(&self) -> &'static str {
        match self {
            Self::Token(refused) => refused.code(),
            Self::Revoked => "revoked",
            Self::OutOfTime => "time",
            Self::RevocationsUnknown => "revocations_unknown",
            Self::Denied(denied) => denied.code(),
        }
    }
}
