//! What the commands about a dead letter share: what is told of it, its headers, and its end.

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::domain::dead_letter::{Headers, decode_headers};
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::error::CtlError;
use crate::store::actions::{Because, Verb, record_letter};
use crate::store::dead_letters::{Letter, LetterRow, delete_letter, lock_letter};
use crate::text::{or_dash, printable, rfc3339};

/// What is told of a record in a list, and in `show` too.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) id: i64,
    pub(super) code: String,
    topic: String,
    partition: i32,
    offset: i64,
    /// Null if the record has none.
    record_time: Option<String>,
    pub(super) received_at: String,
    /// Null for a record without a value.
    pub(super) payload_bytes: Option<i64>,
}

impl From<LetterRow> for Line {
    fn from(row: LetterRow) -> Self {
        Self {
            id: row.id,
            code: row.reason,
            topic: row.topic,
            partition: row.partition_id,
            offset: row.offset_id,
            record_time: time_of(row.record_time),
            received_at: rfc3339(row.received_at),
            payload_bytes: row.payload_bytes,
        }
    }
}

impl Line {
    /// `topic[partition]@offset`.
    pub(super) fn place(&self) -> String {
        let topic = printable(&self.topic);
        format!("{topic}[{}]@{}", self.partition, self.offset)
    }

    pub(super) fn record_time(&self) -> String {
        or_dash(self.record_time.as_ref())
    }
}

/// Kafka's timestamp for people; whoever sent the record could write anything there.
fn time_of(ms: i64) -> Option<String> {
    if ms < 0 {
        return None;
    }
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?;
    Some(rfc3339(at))
}

pub(super) fn no_such_letter(id: i64) -> CtlError {
    CtlError::Problem(format!(
        "there is no dead letter {id}; nothing was changed.\n\
         To do: `returnsctl dead-letters list` shows those there are; one that was sent again or removed stands in \
         operator_actions"
    ))
}

/// The headers of the record.
pub(super) fn headers(letter: &Letter) -> Result<Headers, CtlError> {
    decode_headers(&letter.headers).ok_or_else(|| {
        CtlError::Problem(format!(
            "the headers of dead letter {} are not as the refund consumer writes them; nothing was changed.\n\
             To do: look at the row; --raw still shows its payload",
            letter.row.id
        ))
    })
}

/// Records what was done and deletes the row, in one transaction. Answers `false` and changes nothing if it is gone.
pub(super) async fn remove(
    conn: &mut MySqlConnection,
    id: i64,
    verb: Verb,
    because: Because<'_>,
    redriven_to: Option<&Value>,
) -> sqlx::Result<bool> {
    let mut tx = conn.begin().await?;
    let to = redriven_to.map(Value::to_string);
    let removed = lock_letter(&mut tx, id).await?
        && record_letter(&mut tx, verb, because, id, to.as_deref()).await? == 1
        && delete_letter(&mut tx, id).await? == 1;
    if removed {
        tx.commit().await?;
    } else {
        tx.rollback().await?;
    }
    Ok(removed)
}

/// What `record_letter` keeps of a row, from a letter in memory whose row is gone.
pub(super) fn details_of(letter: &Letter, redriven_to: &Value) -> Value {
    let row = &letter.row;
    let digest = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    // As MySQL writes a DATETIME(6) into JSON.
    let received_at = row.received_at.format(format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]"
    ));
    json!({
        "id": row.id,
        "topic": row.topic,
        "partition": row.partition_id,
        "offset": row.offset_id,
        "record_time": row.record_time,
        "code": row.reason,
        "received_at": received_at.expect("every component is present in an OffsetDateTime"),
        "key_sha256": letter.msg_key.as_deref().map(digest),
        "headers_sha256": digest(&letter.headers),
        "payload_bytes": row.payload_bytes,
        "payload_sha256": letter.payload.as_deref().map(digest),
        "redriven_to": redriven_to,
        "row": "was_gone",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_none_is_not_told() {
        assert_eq!(
            time_of(1_795_400_000_123).as_deref(),
            Some("2026-11-23T02:13:20.123Z")
        );
        for ms in [-1, i64::MIN, i64::MAX] {
            assert_eq!(time_of(ms), None, "{ms}");
        }
    }
}
