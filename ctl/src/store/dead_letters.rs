//! Rows of `dead_letters`, which the refund consumer writes.

use sqlx::FromRow;
use sqlx::mysql::MySqlConnection;
use time::OffsetDateTime;

/// A dead letter without its contents.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct LetterRow {
    pub(crate) id: i64,
    pub(crate) topic: String,
    pub(crate) partition_id: i32,
    pub(crate) offset_id: i64,
    /// Kafka's, in milliseconds; -1 if the record has none.
    pub(crate) record_time: i64,
    pub(crate) reason: String,
    pub(crate) received_at: OffsetDateTime,
    /// Absent for a record without a value.
    pub(crate) payload_bytes: Option<i64>,
}

/// Dead letters above `after`, ascending by id; of all topics and reasons or of one.
pub(crate) async fn list_letters(
    conn: &mut MySqlConnection,
    after: i64,
    topic: Option<&str>,
    reason: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<LetterRow>> {
    sqlx::query_as(
        "/* list_letters */ SELECT id, topic, partition_id, offset_id, record_time, reason, received_at, \
         LENGTH(payload) AS payload_bytes FROM dead_letters FORCE INDEX (PRIMARY) \
         WHERE id > ? AND (? IS NULL OR topic = ?) AND (? IS NULL OR reason = ?) ORDER BY id LIMIT ?",
    )
    .bind(after)
    .bind(topic)
    .bind(topic)
    .bind(reason)
    .bind(reason)
    .bind(limit)
    .fetch_all(conn)
    .await
}

pub(crate) async fn count_letters(conn: &mut MySqlConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("/* count_letters */ SELECT COUNT(*) FROM dead_letters FORCE INDEX (record)")
        .fetch_one(conn)
        .await
}

/// Every dead letter there is now, ascending.
pub(crate) async fn letter_ids(conn: &mut MySqlConnection) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar("/* letter_ids */ SELECT id FROM dead_letters ORDER BY id")
        .fetch_all(conn)
        .await
}

/// A dead letter with its contents.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Letter {
    #[sqlx(flatten)]
    pub(crate) row: LetterRow,
    pub(crate) msg_key: Option<Vec<u8>>,
    /// As much of it as was asked for.
    pub(crate) payload: Option<Vec<u8>>,
    /// JSON; see `dead_letter.rs` of the refund consumer.
    pub(crate) headers: Vec<u8>,
}

/// A dead letter with at most so many bytes of its payload.
pub(crate) async fn read_letter(
    conn: &mut MySqlConnection,
    id: i64,
    payload_bytes: i64,
) -> sqlx::Result<Option<Letter>> {
    sqlx::query_as(
        "/* read_letter */ SELECT id, topic, partition_id, offset_id, record_time, reason, received_at, \
         LENGTH(payload) AS payload_bytes, msg_key, LEFT(payload, ?) AS payload, headers FROM dead_letters WHERE id = ?",
    )
    .bind(payload_bytes)
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// All that a MEDIUMBLOB can hold.
pub(crate) const WHOLE: i64 = 16 * 1024 * 1024;

/// Locks a dead letter until the transaction ends: always the first statement of it. `false` if it is gone.
pub(crate) async fn lock_letter(conn: &mut MySqlConnection, id: i64) -> sqlx::Result<bool> {
    let found = sqlx::query("/* lock_letter */ SELECT 1 FROM dead_letters WHERE id = ? FOR UPDATE")
        .bind(id)
        .fetch_optional(conn)
        .await?;
    Ok(found.is_some())
}

pub(crate) async fn delete_letter(conn: &mut MySqlConnection, id: i64) -> sqlx::Result<u64> {
    let deleted = sqlx::query("/* delete_letter */ DELETE FROM dead_letters WHERE id = ?")
        .bind(id)
        .execute(conn)
        .await?;
    Ok(deleted.rows_affected())
}
