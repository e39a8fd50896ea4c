//! A cache of tokens whose signature is good, so that a client's next request costs a hash and no signature check.
//!
//! Must stay true: only fully verified tokens are kept, under their SHA-256 and never in the clear, and only for the keys
//! that verified them: after a change of keys each token is verified again. Revocation is checked outside, for each
//! request. Policy decisions are cached with the token until the end of the current second.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use shared::auth::{Verified, Verifier};

/// The expected number of tokens, and the limit for all of them in bytes. A token that does not fit is verified again.
/// The holder of a Biscuit can derive any number of others from it, so the limit counts bytes.
const EXPECTED: usize = 10_000;
const CAPACITY_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct VerifiedTokens {
    cache: Cache<[u8; 32], CachedToken, Weight>,
}

#[derive(Debug, Clone)]
struct CachedToken {
    token: Arc<Verified>,
    /// Kept alive, so that no later key set has the same address.
    verified_by: Arc<Verifier>,
    characters: usize,
}

/// The approximate size of a token in memory. Measured: a plain Biscuit of 360 characters takes 5 kB; the largest one
/// allowed takes some 30 bytes for each of its own. The constant includes its cached policy decisions, at most 1 kB.
#[derive(Debug, Clone)]
struct Weight;

impl Weighter<[u8; 32], CachedToken> for Weight {
    fn weight(&self, _: &[u8; 32], token: &CachedToken) -> u64 {
        2048 + 24 * u64::try_from(token.characters).unwrap_or(u64::MAX / 32)
    }
}

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        Self {
            cache: Cache::with_weighter(EXPECTED, CAPACITY_BYTES, Weight),
        }
    }

    /// The verified token from the cache, or from `verify`. A success is cached.
    pub(super) fn get_or_verify<E>(
        &self,
        token: &str,
        verifier: &Arc<Verifier>,
        verify: impl FnOnce(&str) -> Result<Verified, E>,
    ) -> Result<Arc<Verified>, E> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.cache.get(&digest) {
            if Arc::ptr_eq(&known.verified_by, verifier) {
                return Ok(known.token);
            }
            self.cache.remove(&digest);
        }
        let verified = Arc::new(verify(token)?);
        let cached = CachedToken {
            token: Arc::clone(&verified),
            verified_by: Arc::clone(verifier),
            characters: token.len(),
        };
        self.cache.insert(digest, cached);
        Ok(verified)
    }
}
