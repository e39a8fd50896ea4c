//! The spans of an event on its way through the relay: the time in the outbox, and each attempt to send it.
//!
//! Each row's context comes from the row, never from the loop that serves many of them. A row without a context, or with
//! a broken one, begins a trace.

use rdkafka::error::RDKafkaErrorCode;
use shared::domain::trace_context::TraceContext;
use shared::runtime::trace::{self, Batch, KeyValue, Span, SpanKind, names};

use crate::pending::Pending;

/// One attempt to send a row. It ends when it is dropped: with the acknowledgement, or with the producer.
#[derive(Debug, Default)]
pub(crate) struct SendSpan(Option<Span>);

/// Rows that are sent together.
pub(crate) fn batch_of(rows: &[Pending]) -> Batch {
    if !trace::is_on() {
        return Batch::default();
    }
    let contexts: Vec<TraceContext> = rows.iter().filter_map(Pending::trace).collect();
    Batch::of_contexts("relay.batch", &contexts)
}

impl SendSpan {
    /// `partition`: where the record goes.
    pub(crate) fn begin(row: &Pending, partition: usize, batch: &Batch) -> Self {
        if !trace::is_on() {
            return Self::default();
        }
        let parent = row.trace();
        let wait = trace::span(SpanKind::Internal, "outbox.wait")
            .child_of(parent.as_ref())
            .since(row.created)
            .start();
        if !wait.is_recorded() {
            return Self::default();
        }
        wait.set(|| {
            let waited = row.created.elapsed().as_millis();
            let waited = i64::try_from(waited).unwrap_or(i64::MAX);
            [
                KeyValue::new(names::MESSAGING_MESSAGE_ID, row.key.event_id.to_string()),
                KeyValue::new(names::OUTBOX_WAIT_MS, waited),
            ]
        });
        wait.end();
        let send = trace::span(SpanKind::Producer, format!("send {}", row.topic))
            .child_of(wait.context())
            .linked_to(batch.context())
            .start();
        send.set(|| {
            [
                KeyValue::new(names::MESSAGING_SYSTEM, "kafka"),
                KeyValue::new(names::MESSAGING_OPERATION_NAME, "send"),
                KeyValue::new(names::MESSAGING_OPERATION_TYPE, "send"),
                KeyValue::new(names::MESSAGING_DESTINATION_NAME, row.topic.clone()),
                KeyValue::new(
                    names::MESSAGING_DESTINATION_PARTITION_ID,
                    partition.to_string(),
                ),
                KeyValue::new(names::MESSAGING_KAFKA_MESSAGE_KEY, row.msg_key.clone()),
                KeyValue::new(names::MESSAGING_MESSAGE_ID, row.key.event_id.to_string()),
                KeyValue::new(
                    names::MESSAGING_MESSAGE_CONVERSATION_ID,
                    row.return_id.to_string(),
                ),
            ]
        });
        Self(Some(send))
    }

    /// What the record carries. `None`: the row's own context.
    pub(crate) fn context(&self) -> Option<&TraceContext> {
        self.0.as_ref().map(Span::context)
    }

    /// The record was not enqueued, or Kafka refused it.
    pub(crate) fn fail(&self, code: RDKafkaErrorCode) {
        if let Some(span) = &self.0 {
            span.fail(format!("{code:?}"));
        }
    }
}
