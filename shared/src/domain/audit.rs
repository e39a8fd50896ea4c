//! Rows of `return_events` and the hash that chains them. Only `transition` appends.
//!
//! The hash of each row covers its fields and the hash of the row before it, so a changed, missing or reordered row is
//! detected. The chain has no key: a person who can rewrite the whole table can rewrite the chain too.

use sha2::{Digest, Sha256};
use sqlx::{MySqlConnection, QueryBuilder};
use time::OffsetDateTime;

use crate::domain::actor::Actor;
use crate::domain::bulk;
use crate::domain::ids::{EventId, ReturnId};
use crate::domain::timestamp::timestamp_text;
use crate::domain::trace_context::TraceContext;

/// `prev_hash` of the first event of a return: 64 zeros.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One event as it is stored and hashed.
#[derive(Debug, Clone)]
pub struct AuditRow {
    pub return_id: ReturnId,
    pub seq: i32,
    pub event_id: EventId,
    pub event_type: String,
    /// The JSON text that is stored and hashed, byte for byte.
    pub event_data: String,
    pub actor: Actor,
    pub request_id: Option<String>,
    pub trace_id: Option<String>,
    pub created_at: OffsetDateTime,
    pub prev_hash: String,
}

/// A row with its hash, which the next row of the chain needs too, and the context that its trace id is of.
#[derive(Debug)]
pub(crate) struct HashedRow {
    pub(crate) row: AuditRow,
    pub(crate) hash: String,
    pub(crate) trace: TraceContext,
}

impl HashedRow {
    pub(crate) fn new(row: AuditRow, trace: TraceContext) -> Self {
        Self {
            hash: row.hash(),
            row,
            trace,
        }
    }
}

impl AuditRow {
    /// The row's hash: 64 lower-case hex digits.
    pub fn hash(&self) -> String {
        hash_fields(&[
            Some(&self.return_id.to_string()),
            Some(&self.seq.to_string()),
            Some(&self.event_type),
            Some(&timestamp_text(self.created_at)),
            Some(self.actor.kind.as_str()),
            Some(&self.actor.id),
            self.request_id.as_deref(),
            self.trace_id.as_deref(),
            Some(&self.event_data),
            Some(&self.prev_hash),
        ])
    }
}

/// SHA-256 over the version line and each field as u32 big-endian length and bytes; NULL is `FFFFFFFF`.
fn hash_fields(fields: &[Option<&str>]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"returns.event.v1\n");
    for field in fields {
        match field {
            Some(text) => {
                let len = u32::try_from(text.len()).expect("a TEXT column holds less than 4 GiB");
                hasher.update(len.to_be_bytes());
                hasher.update(text.as_bytes());
            }
            None => hasher.update(u32::MAX.to_be_bytes()),
        }
    }
    hex::encode(hasher.finalize())
}

/// Appends rows, which must be sorted by `(return_id, seq)`.
pub(crate) async fn append(conn: &mut MySqlConnection, rows: &[HashedRow]) -> sqlx::Result<()> {
    for slice in bulk::slices(rows) {
        let mut insert = QueryBuilder::new(
            "/* audit::append */ INSERT INTO return_events (return_id, seq, event_id, event_type, event_data, \
             actor_type, actor_id, request_id, trace_id, span_id, trace_flags, created_at, prev_hash, hash) ",
        );
        insert.push_values(slice, |mut values, HashedRow { row, hash, trace }| {
            values
                .push_bind(row.return_id)
                .push_bind(row.seq)
                .push_bind(row.event_id)
                .push_bind(&row.event_type)
                .push_bind(&row.event_data)
                .push_bind(row.actor.kind.as_str())
                .push_bind(&row.actor.id)
                .push_bind(&row.request_id)
                .push_bind(&row.trace_id)
                .push_bind(trace.span_id())
                .push_bind(trace.flags())
                .push_bind(row.created_at)
                .push_bind(&row.prev_hash)
                .push_bind(hash);
        });
        insert.build().execute(&mut *conn).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::uuid;

    use super::*;
    use crate::domain::actor::ActorType;

    #[test]
    fn p7_hash_matches_the_published_vector() {
        let row = AuditRow {
            return_id: ReturnId(1001),
            seq: 1,
            event_id: EventId(uuid!("019ab000-0000-7000-8000-000000000001")),
            event_type: "return.initiated".to_owned(),
            event_data: r#"{"event_id":"019ab000-0000-7000-8000-000000000001","order_id":"500","from":null,"to":"initiated"}"#.to_owned(),
            actor: Actor { kind: ActorType::Customer, id: "42".to_owned() },
            request_id: Some("req-1".to_owned()),
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
            created_at: datetime!(2026-11-23 02:15:00.123456 UTC),
            prev_hash: GENESIS.to_owned(),
        };
        assert_eq!(
            row.hash(),
            "c434d5565880a3a6d21306f23a1a58821e0e4eefb280da5647ac20f3f997747d"
        );
    }

    #[test]
    fn null_differs_from_empty() {
        assert_ne!(hash_fields(&[None]), hash_fields(&[Some("")]));
    }
}
