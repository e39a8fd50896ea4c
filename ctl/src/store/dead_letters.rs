//! Rows of `dead_letters`, which the refund consumer writes.

use shared::domain::event::header;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, FromRow};
use time::OffsetDateTime;

/// A dead letter without its key, headers and payload.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct DeadLetterSummary {
    pub(crate) id: i64,
    pub(crate) topic: String,
    pub(crate) partition_id: i32,
    pub(crate) offset_id: i64,
    /// Kafka's, in milliseconds; -1 if the record has none.
    pub(crate) record_time: i64,
    pub(crate) reason: String,
    pub(crate) received_at: OffsetDateTime,
    /// `None` for a record without a value.
    pub(crate) payload_bytes: Option<i64>,
    /// How often it was sent again before it came back.
    pub(crate) redriven: i64,
}

/// Each redrive adds one header of this name, and `dead_letters.headers` is JSON that the consumer writes without spaces.
fn redriven() -> String {
    let name = format!("[\"{}\",", header::REDRIVEN_FROM);
    let without = format!("REPLACE(headers, '{name}', '')");
    format!("(LENGTH(headers) - LENGTH({without})) DIV LENGTH('{name}') AS redriven")
}

/// Dead letters above `after`, ascending by id; of all topics and reasons or of one.
pub(crate) async fn list_dead_letters(
    conn: &mut MySqlConnection,
    after: i64,
    topic: Option<&str>,
    reason: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<DeadLetterSummary>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "/* list_dead_letters */ SELECT id, topic, partition_id, offset_id, record_time, reason, received_at, \
         LENGTH(payload) AS payload_bytes, {} FROM dead_letters FORCE INDEX (PRIMARY) \
         WHERE id > ? AND (? IS NULL OR topic = ?) AND (? IS NULL OR reason = ?) ORDER BY id LIMIT ?",
        redriven()
    )))
    .bind(after)
    .bind(topic)
    .bind(topic)
    .bind(reason)
    .bind(reason)
    .bind(limit)
    .fetch_all(conn)
    .await
}

pub(crate) async fn count_dead_letters(conn: &mut MySqlConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "/* count_dead_letters */ SELECT COUNT(*) FROM dead_letters FORCE INDEX (record)",
    )
    .fetch_one(conn)
    .await
}

/// For how long the oldest dead letter has waited.
pub(crate) async fn oldest_dead_letter(conn: &mut MySqlConnection) -> sqlx::Result<Option<f64>> {
    sqlx::query_scalar(
        "/* oldest_dead_letter */ SELECT TIMESTAMPDIFF(MICROSECOND, received_at, UTC_TIMESTAMP(6)) / 1e6 \
         FROM dead_letters ORDER BY id LIMIT 1",
    )
    .fetch_optional(conn)
    .await
}

/// The ids of all dead letters, ascending.
pub(crate) async fn dead_letter_ids(conn: &mut MySqlConnection) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar("/* dead_letter_ids */ SELECT id FROM dead_letters ORDER BY id")
        .fetch_all(conn)
        .await
}

/// A dead letter with its key, headers and payload.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct DeadLetter {
    #[sqlx(flatten)]
    pub(crate) summary: DeadLetterSummary,
    pub(crate) msg_key: Option<Vec<u8>>,
    /// Its first bytes, as many as were asked for.
    pub(crate) payload: Option<Vec<u8>>,
    /// JSON; see `shared::domain::dead_letter`.
    pub(crate) headers: Vec<u8>,
}

/// A dead letter with at most `payload_bytes` of its payload.
pub(crate) async fn read_dead_letter(
    conn: &mut MySqlConnection,
    id: i64,
    payload_bytes: i64,
) -> sqlx::Result<Option<DeadLetter>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "/* read_dead_letter */ SELECT id, topic, partition_id, offset_id, record_time, reason, received_at, \
         LENGTH(payload) AS payload_bytes, {}, msg_key, LEFT(payload, ?) AS payload, headers FROM dead_letters \
         WHERE id = ?",
        redriven()
    )))
    .bind(payload_bytes)
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// The size of the largest MEDIUMBLOB.
pub(crate) const WHOLE: i64 = 16 * 1024 * 1024;

/// Locks a dead letter until the transaction ends: always its first statement. `false` if it is gone.
pub(crate) async fn lock_dead_letter(conn: &mut MySqlConnection, id: i64) -> sqlx::Result<bool> {
    let found =
        sqlx::query("/* lock_dead_letter */ SELECT 1 FROM dead_letters WHERE id = ? FOR UPDATE")
            .bind(id)
            .fetch_optional(conn)
            .await?;
    Ok(found.is_some())
}

pub(crate) async fn delete_dead_letter(conn: &mut MySqlConnection, id: i64) -> sqlx::Result<u64> {
    let deleted = sqlx::query("/* delete_dead_letter */ DELETE FROM dead_letters WHERE id = ?")
        .bind(id)
        .execute(conn)
        .await?;
    Ok(deleted.rows_affected())
}
