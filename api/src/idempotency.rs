//! `Idempotency-Key`: the same key and body get the same 201 for 24 hours; another body under the key gets 422.
//!
//! Only 201 responses are stored, in the transaction that files the return. So a return and its stored response are
//! both committed or both rolled back.

use std::time::Duration;

use bytes::Bytes;
use shared::domain::actor::Actor;
use shared::runtime::db::{Database, DbError};
use shared::runtime::tasks::{Backoff, Outage, every};
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::store::{self, IdempotencyKey, StoredResponse};

/// The longest key: `idempotency.idem_key`.
const KEY_MAX: usize = 255;

impl IdempotencyKey {
    /// # Errors
    /// [`ApiError::BadRequest`] unless the key is 1 to 255 visible ASCII characters.
    pub(crate) fn new(actor: &Actor, key: &str, fingerprint: [u8; 32]) -> Result<Self, ApiError> {
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

    /// The stored body, if it belongs to the same request.
    ///
    /// # Errors
    /// [`ApiError::KeyReused`] when the key was used with another body.
    pub(crate) fn accept(&self, stored: &StoredResponse) -> Result<Bytes, ApiError> {
        if stored.fingerprint == self.fingerprint {
            Ok(stored.body.clone())
        } else {
            Err(ApiError::KeyReused)
        }
    }
}

/// Deleted per statement: each delete locks few rows and is short.
const EXPIRY_BATCH: u64 = 500;
/// For one batch.
const EXPIRY_DEADLINE: Duration = Duration::from_secs(30);
const EXPIRY_PAUSE: Duration = Duration::from_secs(60);
/// Keeps several api processes from deleting the same rows at the same moment.
const EXPIRY_JITTER: Backoff = Backoff {
    base: EXPIRY_PAUSE,
    cap: EXPIRY_PAUSE,
};
const BATCH_PAUSE: Duration = Duration::from_millis(50);

/// Deletes responses older than a day, in small batches, until `stop`.
pub(crate) async fn expire(db: Database, stop: CancellationToken) {
    let mut outage = Outage::new("deleting expired idempotency keys");
    let mut turns = every(EXPIRY_PAUSE, &stop);
    while turns.next().await {
        let deleted = db.run("expire_idempotency_keys", EXPIRY_DEADLINE, |conn| {
            Box::pin(async {
                let deleted = store::delete_expired_keys(conn, EXPIRY_BATCH).await;
                deleted.map_err(DbError::from)
            })
        });
        match deleted.await {
            Ok(deleted) => {
                outage.ended();
                if deleted == EXPIRY_BATCH {
                    turns.pause_next(BATCH_PAUSE);
                    continue;
                }
            }
            Err(error) => outage.failed(&error),
        }
        turns.pause_next(EXPIRY_PAUSE + EXPIRY_JITTER.pause(0));
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
}
