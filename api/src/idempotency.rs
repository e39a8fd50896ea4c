//! `Idempotency-Key`: the same key and body get the same 201 for 24 hours; another body under it gets 422.
//!
//! Only 201 answers are stored, in the transaction that files the return, so a stored answer and its row live or
//! die together.

use std::time::Duration;

use bytes::Bytes;
use shared::domain::actor::Actor;
use shared::runtime::retry;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::lane::Lane;
use crate::store;

/// A key as the client sent it, bound to who sent it and to what the body said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// `type:id` of the actor: keys of different callers never meet.
    pub actor: String,
    pub key: String,
    /// SHA-256 of the request's meaning, not of its bytes: white space may differ in a repeat.
    pub fingerprint: [u8; 32],
}

/// An answer that was stored under a key.
#[derive(Debug, Clone)]
pub struct StoredAnswer {
    pub fingerprint: [u8; 32],
    pub body: Bytes,
}

/// The longest key: `idempotency.idem_key`.
const KEY_MAX: usize = 255;
/// A duplicate at least this long may have been cut (MySQL's `key_unpack` stops at 64 characters).
const SHOWN_MIN: usize = 60;
/// Deleted per statement, so that no delete locks many rows or runs long.
pub(crate) const EXPIRY_BATCH: u64 = 500;
const EXPIRY_PAUSE: Duration = Duration::from_secs(60);

impl IdempotencyKey {
    /// # Errors
    /// [`ApiError::BadRequest`] unless the key is 1 to 255 visible ASCII characters.
    pub fn new(actor: &Actor, key: &str, fingerprint: [u8; 32]) -> Result<Self, ApiError> {
        let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
        if key.is_empty() || key.len() > KEY_MAX || !visible {
            return Err(ApiError::BadRequest(format!(
                "Idempotency-Key must be 1 to {KEY_MAX} visible ASCII characters"
            )));
        }
        Ok(Self {
            actor: format!("{}:{}", actor.kind.as_str(), actor.id),
            key: key.to_owned(),
            fingerprint,
        })
    }

    /// Whether this is the row that MySQL's duplicate error on `idempotency.PRIMARY` names.
    pub(crate) fn is_duplicate_entry(&self, value: &str) -> bool {
        let whole = format!("{}-{}", self.actor, self.key);
        // MySQL shows at most 64 characters of a long key, with dots behind.
        match value.strip_suffix("...") {
            Some(cut) if cut.len() >= SHOWN_MIN => whole.starts_with(cut),
            _ if value.len() >= SHOWN_MIN => whole.starts_with(value),
            _ => whole == value,
        }
    }

    /// The stored body, if it answers this very request.
    ///
    /// # Errors
    /// [`ApiError::KeyReused`] when the key was used with another body.
    pub(crate) fn accept(&self, stored: &StoredAnswer) -> Result<Bytes, ApiError> {
        if stored.fingerprint == self.fingerprint {
            Ok(stored.body.clone())
        } else {
            Err(ApiError::KeyReused)
        }
    }
}

/// How long a batch may wait for its turn, and take.
pub(crate) const EXPIRY_DEADLINE: Duration = Duration::from_secs(30);

/// Deletes answers older than a day, in small batches, until `stop`.
pub(crate) async fn expire(lane: Lane, stop: CancellationToken) {
    loop {
        // Finished before `stop` is looked at again.
        let deleted = lane.query(|conn| Box::pin(store::delete_expired_keys(conn)));
        let more = match deleted.await {
            Ok(count) => count == EXPIRY_BATCH,
            Err(error) => {
                tracing::warn!(%error, "could not delete expired idempotency keys");
                false
            }
        };
        // Jitter keeps several api processes from deleting the same rows at the same moment.
        let pause = if more {
            Duration::from_millis(50)
        } else {
            EXPIRY_PAUSE + retry::full_jitter(0, EXPIRY_PAUSE, EXPIRY_PAUSE)
        };
        if stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::ids::CustomerId;

    use super::*;

    #[test]
    fn keys_are_visible_ascii_of_bounded_length() {
        let actor = Actor::customer(CustomerId(42));
        let long = "k".repeat(KEY_MAX + 1);
        for bad in ["", " ", "a b", "ключ", "a\u{7f}", &long] {
            assert!(IdempotencyKey::new(&actor, bad, [0; 32]).is_err(), "{bad}");
        }
        assert!(IdempotencyKey::new(&actor, &long[1..], [0; 32]).is_ok());
    }

    #[test]
    fn the_duplicate_error_names_one_key() {
        let actor = Actor::customer(CustomerId(42));
        let key = IdempotencyKey::new(&actor, "a-b", [0; 32]).expect("a good key");
        assert!(key.is_duplicate_entry("customer:42-a-b"));
        assert!(!key.is_duplicate_entry("customer:42-a"));
        assert!(!key.is_duplicate_entry("customer:4-2-a-b"));
        let long = IdempotencyKey::new(&actor, &"k".repeat(64), [0; 32]).expect("a good key");
        let shown = format!("customer:42-{}", "k".repeat(52));
        assert!(long.is_duplicate_entry(&shown));
        assert!(!key.is_duplicate_entry(&shown));
    }
}
