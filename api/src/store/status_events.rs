//! The status changes that streams send: events of returns, ascending by seq.

use serde::Deserialize;
use serde_json::json;
use shared::domain::ids::ReturnId;
use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};
use time::OffsetDateTime;

/// A status change.
#[derive(Debug)]
pub(crate) struct StatusRow {
    pub(crate) seq: i32,
    /// Text, because a later version may write a status that this version does not know.
    pub(crate) status: String,
    pub(crate) created_at: OffsetDateTime,
}

/// The changes of watched returns above the seq up to which each is known, at most `limit` of each.
///
/// The statement starts at the list and reads each return's row. For a return that has not changed it reads no other
/// row. The transaction that writes an event raises the version, so an event that is committed late is found late.
pub(crate) async fn read_changes(
    conn: &mut MySqlConnection,
    known: &[(ReturnId, i32)],
    limit: usize,
) -> sqlx::Result<Vec<(ReturnId, StatusRow)>> {
    let rows = sqlx::query(
        "/* read_changes */ SELECT e.return_id, e.seq, e.event_data, e.created_at \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$[0]', seq INT PATH '$[1]')) AS known \
         STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = known.id AND r.version > known.seq \
         STRAIGHT_JOIN return_events AS e FORCE INDEX (return_seq) \
         ON e.return_id = r.id AND e.seq > known.seq AND e.seq <= known.seq + ?",
    )
    .bind(json!(known).to_string())
    .bind(i64::try_from(limit).expect("a small number"))
    .fetch_all(conn)
    .await?;
    let mut changes = rows
        .iter()
        .map(|row| Ok((row.try_get("return_id")?, status_row(row)?)))
        .collect::<sqlx::Result<Vec<(ReturnId, StatusRow)>>>()?;
    changes.sort_unstable_by_key(|(id, row)| (*id, row.seq));
    Ok(changes)
}

/// Events per read, for a stream that is further behind than the events in memory.
const PAGE: u32 = 100;

/// The next events of a return above `seq`.
pub(crate) async fn read_page(
    conn: &mut MySqlConnection,
    id: ReturnId,
    seq: i32,
) -> sqlx::Result<Vec<StatusRow>> {
    sqlx::query(
        "/* read_page */ SELECT seq, event_data, created_at FROM return_events \
         WHERE return_id = ? AND seq > ? ORDER BY seq LIMIT ?",
    )
    .bind(id)
    .bind(seq)
    .bind(PAGE)
    .fetch_all(conn)
    .await?
    .iter()
    .map(status_row)
    .collect()
}

/// The part of `event_data` that every event has.
#[derive(Deserialize)]
struct EventData {
    to: String,
}

/// The status of an event whose data was tampered with. Its stream and all others go on.
const UNREADABLE: &str = "unreadable";

fn status_row(row: &MySqlRow) -> sqlx::Result<StatusRow> {
    let data: String = row.try_get("event_data")?;
    let seq: i32 = row.try_get("seq")?;
    let status = match serde_json::from_str::<EventData>(&data) {
        Ok(data) => data.to,
        Err(error) => {
            tracing::error!(%error, seq, "the data of an event cannot be read");
            UNREADABLE.to_owned()
        }
    };
    Ok(StatusRow {
        seq,
        status,
        created_at: row.try_get("created_at")?,
    })
}
