//! Answers that were stored under an idempotency key.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::json;
use sqlx::{MySqlConnection, QueryBuilder, Row};
use time::OffsetDateTime;

use crate::idempotency::{EXPIRY_BATCH, IdempotencyKey, StoredAnswer};

/// The stored answers among `keys`, by actor and key.
pub(crate) async fn read_answers<'k>(
    conn: &mut MySqlConnection,
    keys: &[&'k IdempotencyKey],
) -> sqlx::Result<HashMap<(&'k str, &'k str), StoredAnswer>> {
    let wanted: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(at, key)| json!({"at": at, "actor": key.actor, "key": key.key}))
        .collect();
    let rows = sqlx::query(
        "/* read_answers */ SELECT wanted.at, i.fingerprint, i.body \
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
            let answer = StoredAnswer {
                fingerprint,
                body: Bytes::from(body),
            };
            Ok(((key.actor.as_str(), key.key.as_str()), answer))
        })
        .collect()
}

/// Stores 201 answers; sorted by key by the caller.
pub(crate) async fn insert_answers(
    conn: &mut MySqlConnection,
    now: OffsetDateTime,
    answers: &[(&IdempotencyKey, Bytes)],
) -> sqlx::Result<()> {
    if answers.is_empty() {
        return Ok(());
    }
    let mut insert = QueryBuilder::new(
        "/* insert_answers */ INSERT INTO idempotency (actor, idem_key, fingerprint, status, body, created_at) ",
    );
    insert.push_values(answers, |mut values, (key, body)| {
        values
            .push_bind(&key.actor)
            .push_bind(&key.key)
            .push_bind(&key.fingerprint[..])
            .push_bind(201_i16)
            .push_bind(&body[..])
            .push_bind(now);
    });
    insert.build().execute(conn).await?;
    Ok(())
}

/// Deletes at most [`EXPIRY_BATCH`] answers older than 25 hours; answers how many. The hour covers an answer that was
/// dated before it waited for a lock.
pub(crate) async fn delete_expired_keys(conn: &mut MySqlConnection) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "/* delete_expired_keys */ DELETE /*+ INDEX(idempotency created) */ FROM idempotency \
         WHERE created_at < UTC_TIMESTAMP(6) - INTERVAL 25 HOUR ORDER BY created_at LIMIT ?",
    )
    .bind(EXPIRY_BATCH)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
