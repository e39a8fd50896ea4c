//! P7: reading the audit trail and verifying its chain; writing rows that no transition would write.

use std::str::FromStr;

use sqlx::mysql::{MySqlPool, MySqlRow};
use sqlx::{MySqlConnection, Row};

use super::BrokenPromise;
use crate::domain::actor::{Actor, ActorType};
use crate::domain::audit::{self, AuditRow, GENESIS, HashedRow};
use crate::domain::ids::ReturnId;
use crate::domain::trace_context::TraceContext;

/// The events of one return, or of all, by return and seq. Each chain must be without gaps, and each stored hash must be
/// that of its row.
///
/// # Errors
/// P7 is broken.
///
/// # Panics
/// The rows cannot be read.
pub async fn read_verified(
    pool: &MySqlPool,
    of: Option<ReturnId>,
) -> Result<Vec<AuditRow>, BrokenPromise> {
    let stored = sqlx::query(
        "SELECT * FROM return_events WHERE return_id = COALESCE(?, return_id) ORDER BY return_id, seq",
    )
    .bind(of)
    .fetch_all(pool)
    .await
    .expect("the audit trail");
    let mut rows: Vec<AuditRow> = Vec::with_capacity(stored.len());
    let (mut seq, mut hash) = (0, String::new());
    for stored in &stored {
        let row = decode(stored);
        if rows
            .last()
            .is_none_or(|last| last.return_id != row.return_id)
        {
            (seq, hash) = (0, GENESIS.to_owned());
        }
        seq += 1;
        let name = format!("return {} seq {}", row.return_id, row.seq);
        if row.seq != seq {
            return Err(BrokenPromise(format!("P7: {name} instead of seq {seq}")));
        }
        if row.prev_hash != hash {
            return Err(BrokenPromise(format!(
                "P7: {name} does not have the hash before it"
            )));
        }
        hash = row.hash();
        if stored.get::<String, _>("hash") != hash {
            return Err(BrokenPromise(format!("P7: {name} does not match its hash")));
        }
        rows.push(row);
    }
    Ok(rows)
}

fn decode(row: &MySqlRow) -> AuditRow {
    AuditRow {
        return_id: row.get("return_id"),
        seq: row.get("seq"),
        event_id: row.get("event_id"),
        event_type: row.get("event_type"),
        event_data: row.get("event_data"),
        actor: Actor {
            kind: ActorType::from_str(row.get("actor_type")).expect("an actor type"),
            id: row.get("actor_id"),
        },
        request_id: row.get("request_id"),
        trace_id: row.get("trace_id"),
        created_at: row.get("created_at"),
        prev_hash: row.get("prev_hash"),
    }
}

/// Inserts rows with their hashes.
///
/// # Panics
/// The statement fails.
pub async fn insert(conn: &mut MySqlConnection, rows: &[AuditRow]) {
    let hashed = |row: &AuditRow| HashedRow::new(row.clone(), TraceContext::new_root());
    let rows: Vec<_> = rows.iter().map(hashed).collect();
    audit::append(conn, &rows).await.expect("audit rows");
}
