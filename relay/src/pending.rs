//! An outbox row on its way to Kafka.

use std::time::Instant;

use shared::domain::event::Envelope;
use shared::domain::ids::{EventId, ReturnId, Shard};
use shared::domain::trace_context::TraceContext;
use time::OffsetDateTime;

/// Identifies a row. The id alone is not enough: after a restore, MySQL could assign it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    pub shard: Shard,
    pub id: i64,
    pub event_id: EventId,
}

/// A committed event that is still in the outbox.
#[derive(Debug, Clone)]
pub struct Pending {
    pub key: RowKey,
    pub return_id: ReturnId,
    pub seq: i32,
    pub event_type: String,
    pub topic: String,
    pub msg_key: String,
    pub payload: Vec<u8>,
    /// Under which the event was written. `None`: missing or broken.
    pub trace: Option<TraceContext>,
    pub created_at: OffsetDateTime,
    /// `created_at` on this process's monotonic clock, from the row's age by the database's clock.
    pub created: Instant,
}

/// Record batch header of message format 2 (<https://kafka.apache.org/documentation/#recordbatch>).
const BATCH_OVERHEAD: usize = 61;
/// Maximum size of a record's attributes and variable-length numbers.
const RECORD_OVERHEAD: usize = 31;
/// Two lengths of at most five bytes each.
const HEADER_OVERHEAD: usize = 10;

impl Pending {
    /// `sent_as`: the context of the attempt to send it; else the row's own goes on.
    pub fn envelope<'a>(&'a self, epoch: i64, sent_as: Option<&'a TraceContext>) -> Envelope<'a> {
        let trace = sent_as.or(self.trace.as_ref());
        Envelope {
            event_id: self.key.event_id,
            event_type: &self.event_type,
            return_id: self.return_id,
            seq: self.seq,
            created_at: self.created_at,
            traceparent: trace.map(TraceContext::traceparent),
            tracestate: trace.and_then(TraceContext::tracestate),
            epoch,
        }
    }

    /// The maximum size of an uncompressed batch with only this record. A topic's `max.message.bytes` limits it.
    pub fn record_bytes(&self) -> usize {
        let headers = self
            .envelope(i64::MAX, None)
            .fold_headers(0, |bytes, name, value| {
                bytes + HEADER_OVERHEAD + name.len() + value.len()
            });
        BATCH_OVERHEAD + RECORD_OVERHEAD + self.msg_key.len() + self.payload.len() + headers
    }
}
