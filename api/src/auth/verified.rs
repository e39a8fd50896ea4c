//! Tokens whose signature was found good, so that a client's next request costs a hash and no signature check.
//!
//! Must stay true: only what was verified in full is kept, under its SHA-256 and never in the clear, and it is honored
//! no longer than the verifier itself would. A signature stays good for the process's life, because keys are read once
//! at start; whatever may change while a token lives, such as its revocation, has to be judged outside.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use shared::auth::{Caller, Verified};

/// About 100 bytes each; more callers than this at a time are verified again.
const CAPACITY: usize = 10_000;

#[derive(Debug, Clone)]
pub(super) struct VerifiedTokens {
    cache: Arc<Cache<[u8; 32], Verified>>,
}

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        Self {
            cache: Arc::new(Cache::new(CAPACITY)),
        }
    }

    /// The caller of this token now, by the clock that judges `exp`: remembered, or what `verify` says, which is remembered if it is good.
    pub(super) fn caller<E>(
        &self,
        token: &str,
        verify: impl FnOnce(&str) -> Result<Verified, E>,
    ) -> Result<Caller, E> {
        self.caller_at(jsonwebtoken::get_current_timestamp(), token, verify)
    }

    fn caller_at<E>(
        &self,
        now: u64,
        token: &str,
        verify: impl FnOnce(&str) -> Result<Verified, E>,
    ) -> Result<Caller, E> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.cache.get(&digest) {
            if now < known.expires {
                return Ok(known.caller);
            }
            self.cache.remove(&digest);
        }
        let verified = verify(token)?;
        self.cache.insert(digest, verified.clone());
        Ok(verified.caller)
    }
}

#[cfg(test)]
mod tests {
    use shared::auth::Role;

    use super::*;

    const GOOD: Verified = Verified {
        caller: Caller {
            user: 7,
            role: Role::Customer,
        },
        expires: 100,
        jti: None,
    };

    #[test]
    fn a_token_is_verified_once_and_again_after_its_expiry() {
        let tokens = VerifiedTokens::new();
        let ask = |now, answer: Result<Verified, &'static str>| {
            tokens.caller_at(now, "a.b.c", |_| answer)
        };
        assert_eq!(ask(10, Ok(GOOD)), Ok(GOOD.caller));
        assert_eq!(ask(99, Err("asked")), Ok(GOOD.caller));
        assert_eq!(ask(100, Err("asked")), Err("asked"));
        assert_eq!(ask(99, Err("asked")), Err("asked"), "it was forgotten");
    }

    #[test]
    fn a_refused_token_is_refused_again_and_others_are_not_taken_for_it() {
        let tokens = VerifiedTokens::new();
        assert_eq!(tokens.caller_at(1, "a.b.c", |_| Err("bad")), Err("bad"));
        assert_eq!(tokens.caller_at(1, "a.b.c", |_| Err("bad")), Err("bad"));
        assert_eq!(
            tokens.caller_at(1, "a.b.d", |_| Ok::<_, ()>(GOOD)),
            Ok(GOOD.caller)
        );
        assert_eq!(tokens.caller_at(1, "a.b.c", |_| Err("bad")), Err("bad"));
    }
}
