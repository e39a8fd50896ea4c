//! Events as text of a stream (HTML standard, 9.2.6). Written once, sent to every stream of the return.

use bytes::Bytes;
use serde::Serialize;
use shared::domain::status::Status;
use shared::domain::timestamp::timestamp_text;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::store::StatusRow;

/// One event of a return.
#[derive(Debug, Clone)]
pub(super) struct StatusEvent {
    pub(super) seq: i32,
    /// The return is in a final status.
    pub(super) is_final: bool,
    pub(super) frame: Bytes,
}

/// The data of an event `status`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamStatus {
    /// Text, because a later version may write one that this version does not know.
    #[schema(value_type = Status)]
    status: String,
    /// As the event's id: position in the return's history.
    #[schema(minimum = 1)]
    seq: i32,
    /// When the change was made.
    #[schema(format = "date-time")]
    at: String,
}

/// The data of the event `end`: the client need not reconnect.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamEnd {
    /// `final`: no other change is expected. `unauthorized`: the token has expired or was revoked.
    #[schema(example = "final")]
    pub(super) reason: &'static str,
}

impl From<StatusRow> for StatusEvent {
    fn from(row: StatusRow) -> Self {
        Self::new(row.seq, &row.status, row.created_at)
    }
}

impl StatusEvent {
    pub(super) fn new(seq: i32, status: &str, at: OffsetDateTime) -> Self {
        let data = StreamStatus {
            status: status.to_owned(),
            seq,
            at: timestamp_text(at),
        };
        let data = serde_json::to_string(&data).expect("text and a number always serialize");
        Self {
            seq,
            is_final: status.parse().is_ok_and(|status: Status| !status.is_open()),
            frame: format!("event: status\nid: {seq}\ndata: {data}\n\n").into(),
        }
    }
}

/// Milliseconds after which a client reconnects.
pub(super) const RETRY: Bytes = Bytes::from_static(b"retry: 3000\n\n");

/// A comment: the client ignores it, and proxies see that the stream is alive.
pub(super) const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");

pub(super) fn end(reason: &'static str) -> Bytes {
    let data = serde_json::to_string(&StreamEnd { reason }).expect("text always serializes");
    format!("event: end\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_frame_and_knows_whether_it_is_the_last() {
        let event = StatusEvent::new(4, "refunded", OffsetDateTime::UNIX_EPOCH);
        assert_eq!(
            event.frame,
            "event: status\nid: 4\n\
             data: {\"status\":\"refunded\",\"seq\":4,\"at\":\"1970-01-01T00:00:00.000000Z\"}\n\n"
        );
        let is_final = |status| StatusEvent::new(1, status, OffsetDateTime::UNIX_EPOCH).is_final;
        assert!(is_final("rejected") && is_final("cancelled") && is_final("refunded"));
        assert!(!is_final("refund_failed") && !is_final("of_a_later_version"));
    }
}
