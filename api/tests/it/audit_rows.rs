//! Audit events, chained as by `transition`, in numbers and with contents that filing alone does not produce.

use shared::domain::actor::{Actor, ActorType};
use shared::domain::audit::AuditRow;
use shared::domain::ids::{EventId, ReturnId};
use shared::test_support::TestDb;
pub(crate) use shared::test_support::audit_trail::insert;
use time::OffsetDateTime;
use time::macros::datetime;

pub(crate) const LONG_AGO: OffsetDateTime = datetime!(2026-01-02 03:04:05.678901 UTC);

/// An event after the existing ones of the return, with a time long ago.
fn usual(id: ReturnId, seq: i32, prev_hash: String) -> AuditRow {
    let event_id = EventId::generate();
    AuditRow {
        return_id: id,
        seq,
        event_id,
        event_type: "refund.requested".to_owned(),
        event_data: format!(r#"{{"event_id":"{event_id}","order_id":"1"}}"#),
        actor: Actor {
            kind: ActorType::System,
            id: "refund-consumer".to_owned(),
        },
        request_id: None,
        trace_id: None,
        created_at: LONG_AGO,
        prev_hash,
    }
}

/// Appends `count` events to a return. `change` gets each event with its number, from 0.
pub(crate) async fn append(
    db: &TestDb,
    id: i64,
    count: i32,
    change: impl Fn(i32, AuditRow) -> AuditRow,
) {
    let (seq, hash): (i32, String) = sqlx::query_as(
        "SELECT seq, hash FROM return_events WHERE return_id = ? ORDER BY seq DESC LIMIT 1",
    )
    .bind(id)
    .fetch_one(&db.pool)
    .await
    .expect("a filed return");
    let mut head = hash;
    let rows: Vec<AuditRow> = (0..count)
        .map(|n| {
            let row = change(n, usual(ReturnId(id), seq + 1 + n, head.clone()));
            head = row.hash();
            row
        })
        .collect();
    let mut tx = db.pool.begin().await.expect("begin");
    for slice in rows.chunks(1_000) {
        insert(&mut tx, slice).await;
    }
    tx.commit().await.expect("commit");
}
