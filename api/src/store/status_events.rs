//! What streams tell: events of returns, ascending by seq.

use serde::Deserialize;
use serde_json::json;
use shared::domain::ids::ReturnId;
use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};
use time::OffsetDateTime;

use crate::watching::{HELD, StatusEvent};

/// The events of watched returns above the seq up to which each is known, at most [`HELD`] of each.
///
/// It starts at the list and asks each return's row: of what has not changed no other row is touched, and nothing is
/// answered. A version is raised in the transaction that writes the event, so an event that commits late is found late.
pub(crate) async fn read_news(
    conn: &mut MySqlConnection,
    known: &[(ReturnId, i32)],
) -> sqlx::Result<Vec<(ReturnId, StatusEvent)>> {
    let rows = sqlx::query(
        "/* read_news */ SELECT e.return_id, e.seq, e.event_data, e.created_at \
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$[0]', seq INT PATH '$[1]')) AS known \
         STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = known.id AND r.version > known.seq \
         STRAIGHT_JOIN return_events AS e FORCE INDEX (return_seq) \
         ON e.return_id = r.id AND e.seq > known.seq AND e.seq <= known.seq + ?",
    )
    .bind(json!(known).to_string())
    .bind(i64::try_from(HELD).expect("a small number"))
    .fetch_all(conn)
    .await?;
    let mut news = rows
        .iter()
        .map(|row| Ok((row.try_get("return_id")?, status_event(row)?)))
        .collect::<sqlx::Result<Vec<(ReturnId, StatusEvent)>>>()?;
    news.sort_unstable_by_key(|(id, event)| (*id, event.seq));
    Ok(news)
}

/// Events of one return at once, for a stream that is further behind than what is held.
const PAGE: u32 = 100;

/// The next events of a return above `seq`.
pub(crate) async fn read_page(
    conn: &mut MySqlConnection,
    id: ReturnId,
    seq: i32,
) -> sqlx::Result<Vec<StatusEvent>> {
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
    .map(status_event)
    .collect()
}

/// The part of `event_data` that every event has.
#[derive(Deserialize)]
struct EventData {
    to: String,
}

/// What is told of an event whose data was tampered with: its stream goes on, and nobody else's waits for it.
const UNREADABLE: &str = "unreadable";

fn status_event(row: &MySqlRow) -> sqlx::Result<StatusEvent> {
    let data: String = row.try_get("event_data")?;
    let (seq, created_at): (i32, OffsetDateTime) =
        (row.try_get("seq")?, row.try_get("created_at")?);
    let status = match serde_json::from_str::<EventData>(&data) {
        Ok(data) => data.to,
        Err(error) => {
            tracing::error!(%error, seq, "the data of an event cannot be read");
            UNREADABLE.to_owned()
        }
    };
    Ok(StatusEvent::new(seq, &status, created_at))
}
