//! Responses that are stored under an idempotency key.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::json;
use shared::domain::bulk;
use sqlx::{MySqlConnection, QueryBuilder, Row};
use time::OffsetDateTime;

/// A key as the client sent it, with its sender and the meaning of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdempotencyKey {
    /// `type:id` of the actor, so that different callers may use the same key.
    pub(crate) actor: String,
    pub(crate) key: String,
    /// SHA-256 of the meaning of the request. White space in the body may differ in a retry.
    pub(crate) fingerprint: [u8; 32],
}

/// A response that is stored under a key.
#[derive(Debug, Clone)]
pub(crate) struct StoredResponse {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) body: Bytes,
}

/// MySQL may cut a duplicate that is at least this long (its `key_unpack` stops at 64 characters).
const SHOWN_MIN: usize = 60;

impl IdempotencyKey {
    /// Whether this is the row that MySQL's duplicate error on `idempotency.PRIMARY` names.
    pub(crate) fn is_duplicate_entry(&self, value: &str) -> bool {
        let whole = format!("{}-{}", self.actor, self.key);
        // MySQL shows at most 64 characters of a long key, and dots after them.
        match value.strip_suffix("...") {
            Some(cut) if cut.len() >= SHOWN_MIN => whole.starts_with(cut),
            _ if value.len() >= SHOWN_MIN => whole.starts_with(value),
            _ => whole == value,
        }
    }
}

/// The stored responses among `keys`, by actor and key.
pub(crate) async fn read_responses<'k>(
    conn: &mut MySqlConnection,
    keys: &[&'k IdempotencyKey],
) -> sqlx::Result<HashMap<(&'k str, &'k str), StoredResponse>> {
    let wanted: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(at, key)| json!({"at": at, "actor": key.actor, "key": key.key}))
        .collect();
    let rows = sqlx::query(
        "/* read_responses */ SELECT wanted.at, i.fingerprint, i.body \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (at BIGINT PATH '$.at', \
         actor VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin PATH '$.actor', \
         idem_key VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin PATH '$.key')) AS wanted \
         STRAIGHT_JOIN idempotency AS i FORCE INDEX (PRIMARY) \
         ON i.actor = wanted.actor AND i.idem_key = wanted.idem_key",
    )
    .bind(json!(wanted).to_string())
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let at: i64 = row.try_get("at")?;
            let fingerprint: Vec<u8> = row.try_get("fingerprint")?;
            let body: Vec<u8> = row.try_get("body")?;
            let key = usize::try_from(at)
                .ok()
                .and_then(|at| keys.get(at))
                .ok_or(sqlx::Error::RowNotFound)?;
            let fingerprint = fingerprint
                .try_into()
                .map_err(|_| sqlx::Error::Decode("a fingerprint has 32 bytes".into()))?;
            let response = StoredResponse {
                fingerprint,
                body: Bytes::from(body),
            };
            Ok(((key.actor.as_str(), key.key.as_str()), response))
        })
        .collect()
}

/// Stores 201 responses. The caller sorts them by key.
pub(crate) async fn insert_responses(
    conn: &mut MySqlConnection,
    now: OffsetDateTime,
    responses: &[(&IdempotencyKey, Bytes)],
) -> sqlx::Result<()> {
    for slice in bulk::slices(responses) {
        let mut insert = QueryBuilder::new(
            "/* insert_responses */ INSERT INTO idempotency (actor, idem_key, fingerprint, status, body, created_at) ",
        );
        insert.push_values(slice, |mut values, (key, body)| {
            values
                .push_bind(&key.actor)
                .push_bind(&key.key)
                .push_bind(&key.fingerprint[..])
                .push_bind(201_i16)
                .push_bind(&body[..])
                .push_bind(now);
        });
        insert.build().execute(&mut *conn).await?;
    }
    Ok(())
}

/// Deletes at most `limit` responses that are older than 25 hours, and returns how many. The additional hour covers a
/// response that got its time before it waited for a lock.
pub(crate) async fn delete_expired_keys(
    conn: &mut MySqlConnection,
    limit: u64,
) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "/* delete_expired_keys */ DELETE /*+ INDEX(idempotency created) */ FROM idempotency \
         WHERE created_at < UTC_TIMESTAMP(6) - INTERVAL 25 HOUR ORDER BY created_at LIMIT ?",
    )
    .bind(limit)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_duplicate_error_names_one_key() {
        let key = |key: &str| IdempotencyKey {
            actor: "customer:42".to_owned(),
            key: key.to_owned(),
            fingerprint: [0; 32],
        };
        assert!(key("a-b").is_duplicate_entry("customer:42-a-b"));
        assert!(!key("a-b").is_duplicate_entry("customer:42-a"));
        assert!(!key("a-b").is_duplicate_entry("customer:4-2-a-b"));
        let long = key(&"k".repeat(64));
        let shown = format!("customer:42-{}", "k".repeat(52));
        assert!(long.is_duplicate_entry(&shown));
        assert!(!key("a-b").is_duplicate_entry(&shown));
    }
}
