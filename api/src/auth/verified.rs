//! Tokens whose signature was found good, so that a client's next request costs a hash and no signature check.
//!
//! Must stay true: only what was verified in full is kept, under its SHA-256 and never in the clear, and only for the
//! keys that have verified it: other keys, other memory. Whether it is revoked is looked up outside, each
//! time; what the policy says of it is kept with it until its second ends.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use shared::auth::{Verified, Verifier};

/// Tokens that are expected at a time, and what all of them may take; beyond it they are verified again. Whoever holds a
/// Biscuit can make others of it, so it is bytes that are counted.
const EXPECTED: usize = 10_000;
const CAPACITY_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct VerifiedTokens {
    cache: Cache<[u8; 32], Remembered, Weight>,
}

#[derive(Debug, Clone)]
struct Remembered {
    token: Arc<Verified>,
    /// Held, so that no later reading of the file can be taken for it.
    by: Arc<Verifier>,
    characters: usize,
}

/// About what a token takes: measured, a plain Biscuit of 360 characters 5 kB, the largest that is let in some 30 bytes
/// for each of its own. What the policy has said about it in this second, at most 1 kB, is in the constant.
#[derive(Debug, Clone)]
struct Weight;

impl Weighter<[u8; 32], Remembered> for Weight {
    fn weight(&self, _: &[u8; 32], token: &Remembered) -> u64 {
        2048 + 24 * u64::try_from(token.characters).unwrap_or(u64::MAX / 32)
    }
}

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        Self {
            cache: Cache::with_weighter(EXPECTED, CAPACITY_BYTES, Weight),
        }
    }

    /// What this token says, by these keys: remembered, or what `verify` says, which is remembered if it is good.
    pub(super) fn of<E>(
        &self,
        token: &str,
        by: &Arc<Verifier>,
        verify: impl FnOnce(&str) -> Result<Verified, E>,
    ) -> Result<Arc<Verified>, E> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.cache.get(&digest) {
            if Arc::ptr_eq(&known.by, by) {
                return Ok(known.token);
            }
            self.cache.remove(&digest);
        }
        let verified = Arc::new(verify(token)?);
        let remembered = Remembered {
            token: Arc::clone(&verified),
            by: Arc::clone(by),
            characters: token.len(),
        };
        self.cache.insert(digest, remembered);
        Ok(verified)
    }
}
