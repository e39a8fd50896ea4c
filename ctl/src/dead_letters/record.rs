//! What the commands about dead letters share: the fields that are shown, the headers, and the removal.

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::domain::dead_letter::{Headers, decode_headers};
use sqlx::mysql::MySqlConnection;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::error::CtlError;
use crate::store::actions::{Author, Subject, Verb, record};
use crate::store::dead_letters::{
    DeadLetter, DeadLetterSummary, delete_dead_letter, lock_dead_letter,
};
use crate::text::{or_dash, printable, rfc3339};

/// The fields of `list`, which `show` has too.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) id: i64,
    pub(super) code: String,
    topic: String,
    partition: i32,
    offset: i64,
    /// `None` if the record has none.
    record_time: Option<String>,
    pub(super) received_at: String,
    /// `None` for a record without a value.
    pub(super) payload_bytes: Option<i64>,
    /// How often it was sent again and came back.
    pub(super) redriven: i64,
}

impl From<DeadLetterSummary> for Line {
    fn from(row: DeadLetterSummary) -> Self {
        Self {
            id: row.id,
            code: row.reason,
            topic: row.topic,
            partition: row.partition_id,
            offset: row.offset_id,
            record_time: time_of(row.record_time),
            received_at: rfc3339(row.received_at),
            payload_bytes: row.payload_bytes,
            redriven: row.redriven,
        }
    }
}

impl Line {
    /// `topic[partition]@offset`.
    pub(super) fn position(&self) -> String {
        let topic = printable(&self.topic);
        format!("{topic}[{}]@{}", self.partition, self.offset)
    }

    pub(super) fn record_time(&self) -> String {
        or_dash(self.record_time.as_ref())
    }
}

/// Kafka's timestamp for people; `None` if it is no time, because a sender can write any number.
fn time_of(ms: i64) -> Option<String> {
    if ms < 0 {
        return None;
    }
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?;
    Some(rfc3339(at))
}

pub(super) fn no_such_dead_letter(id: i64) -> CtlError {
    CtlError::Problem(format!(
        "there is no dead letter {id}; nothing was changed.\n\
         To do: `returnsctl dead-letters list` shows all; operator_actions has those that were sent again or removed"
    ))
}

/// The headers of the record.
pub(super) fn headers(letter: &DeadLetter) -> Result<Headers, CtlError> {
    decode_headers(&letter.headers).ok_or_else(|| {
        CtlError::Problem(format!(
            "the headers of dead letter {} are not as the refund consumer writes them; nothing was changed.\n\
             To do: look at the row; --raw still shows its payload",
            letter.summary.id
        ))
    })
}

/// Records the action and deletes the row. `false` if the row is deleted already; then nothing is changed.
pub(super) async fn remove(
    conn: &mut MySqlConnection,
    id: i64,
    verb: Verb,
    author: &Author,
    redriven_to: Option<&Value>,
) -> Result<bool, CtlError> {
    if !lock_dead_letter(conn, id).await? {
        return Ok(false);
    }
    let to = redriven_to.map(Value::to_string);
    let subject = Subject::DeadLetter {
        id,
        redriven_to: to.as_deref(),
    };
    record(conn, verb, author, subject).await?;
    delete_dead_letter(conn, id).await?;
    Ok(true)
}

/// The details that `Subject::DeadLetter` records, made of a dead letter in memory whose row is deleted.
pub(super) fn details_of(letter: &DeadLetter, redriven_to: &Value) -> Value {
    let row = &letter.summary;
    let digest = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    // MySQL writes a DATETIME(6) into JSON in this form.
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
    fn a_number_that_is_no_time_is_left_out() {
        assert_eq!(
            time_of(1_795_400_000_123).as_deref(),
            Some("2026-11-23T02:13:20.123Z")
        );
        for ms in [-1, i64::MIN, i64::MAX] {
            assert_eq!(time_of(ms), None, "{ms}");
        }
    }
}
