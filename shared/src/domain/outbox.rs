//! Rows of `outbox`. Only `transition` appends them, always as the last write of its transaction.

use sqlx::{MySqlConnection, QueryBuilder};
use time::OffsetDateTime;

use crate::domain::bulk;
use crate::domain::event::{NewReturnEvent, StatusEvent, TopicArgs};
use crate::domain::ids::{EventId, OrderId, ReturnId, Shard};
use crate::domain::status::Status;
use crate::domain::trace_context::TraceContext;

/// One event that is to be published.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    pub order_id: OrderId,
    pub return_id: ReturnId,
    pub seq: i32,
    pub event_id: EventId,
    pub event_type: &'static str,
    pub status: Status,
    pub trace: TraceContext,
    pub created_at: OffsetDateTime,
}

impl OutboxRow {
    /// Topic and value. The first event of a return goes to the topic of new returns, all others to the status topic.
    fn message<'a>(&self, topics: &'a TopicArgs) -> (&'a str, Vec<u8>) {
        let (topic, value) = if self.seq == 1 {
            let event = NewReturnEvent {
                return_id: self.return_id,
                order_id: self.order_id,
            };
            (&topics.topic_returns, serde_json::to_vec(&event))
        } else {
            let event = StatusEvent {
                return_id: self.return_id,
                order_id: self.order_id,
                status: self.status,
                seq: self.seq,
            };
            (&topics.topic_status, serde_json::to_vec(&event))
        };
        (topic, value.expect("ids and a status always serialize"))
    }
}

/// Appends rows. Within each shard they keep the given order, so that the ids of one return follow its seq.
pub(crate) async fn append(
    conn: &mut MySqlConnection,
    topics: &TopicArgs,
    rows: &[OutboxRow],
) -> sqlx::Result<()> {
    let mut by_shard: Vec<(Shard, &OutboxRow)> = rows
        .iter()
        .map(|row| (Shard::of(row.order_id), row))
        .collect();
    // A stable sort: the primary key is (shard, id), and ids follow the order of insertion.
    by_shard.sort_by_key(|(shard, _)| *shard);
    for slice in bulk::slices(&by_shard) {
        let mut insert = QueryBuilder::new(
            "/* outbox::append */ INSERT INTO outbox (shard, event_id, aggregate_id, seq, event_type, topic, msg_key, \
             payload, traceparent, tracestate, created_at) ",
        );
        insert.push_values(slice, |mut values, (shard, row)| {
            let (topic, payload) = row.message(topics);
            values
                .push_bind(shard)
                .push_bind(row.event_id)
                .push_bind(row.return_id)
                .push_bind(row.seq)
                .push_bind(row.event_type)
                .push_bind(topic)
                .push_bind(row.order_id.to_string())
                .push_bind(payload)
                .push_bind(row.trace.traceparent())
                .push_bind(row.trace.tracestate())
                .push_bind(row.created_at);
        });
        insert.build().execute(&mut *conn).await?;
    }
    Ok(())
}
