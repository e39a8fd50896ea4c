//! The messages: topic names, payloads and headers. They are a contract, as the tables are; see docs/EVENTS.md.
//!
//! Versioning: fields may be added, but never changed or removed. A breaking change is a new `ce_type`.

use std::fmt::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::ids::{EventId, OrderId, ReturnId};
use crate::domain::status::Status;
use crate::domain::timestamp::timestamp_text;

/// The topics of events. New returns have a topic of their own, because most consumers need nothing else.
#[derive(Debug, Clone, clap::Args)]
pub struct TopicArgs {
    /// Kafka topic of new returns (seq 1). All programs must agree.
    #[arg(long, env = "TOPIC_RETURNS", default_value = "order.returns")]
    pub topic_returns: String,

    /// Kafka topic of every later change. All programs must agree.
    #[arg(long, env = "TOPIC_STATUS", default_value = "order.returns.status")]
    pub topic_status: String,
}

/// Kafka's own limit on the length of a topic's name.
const TOPIC_NAME_MAX: usize = 249;

impl TopicArgs {
    /// What is wrong with the two names, one text for each problem.
    pub fn problems(&self) -> Vec<String> {
        let named = [
            ("TOPIC_RETURNS", &self.topic_returns),
            ("TOPIC_STATUS", &self.topic_status),
        ];
        let mut problems: Vec<String> = named
            .into_iter()
            .filter(|(_, name)| !is_topic_name(name))
            .map(|(variable, name)| {
                format!(
                    "{variable} must be 1 to {TOPIC_NAME_MAX} of a-z A-Z 0-9 . _ -, not {name:?}"
                )
            })
            .collect();
        if self.topic_returns == self.topic_status {
            problems.push("TOPIC_RETURNS and TOPIC_STATUS must differ".to_owned());
        }
        problems
    }
}

/// The names that Kafka accepts.
pub fn is_topic_name(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=TOPIC_NAME_MAX).contains(&name.len())
        && name.bytes().all(is_legal)
        && ![".", ".."].contains(&name)
}

/// Names of headers: those of CloudEvents 1.0 in binary mode over Kafka, and our own.
pub mod header {
    pub const SPEC_VERSION: &str = "ce_specversion";
    pub const ID: &str = "ce_id";
    pub const TYPE: &str = "ce_type";
    pub const SOURCE: &str = "ce_source";
    pub const TIME: &str = "ce_time";
    pub const SUBJECT: &str = "ce_subject";
    pub const CONTENT_TYPE: &str = "content-type";
    pub const TRACEPARENT: &str = "traceparent";
    pub const TRACESTATE: &str = "tracestate";
    /// The position of the event in the history of its return, from 1.
    pub const SEQ: &str = "seq";
    /// The epoch of the lease under which the relay sent the record. A lower epoch after a higher one comes from a relay that
    /// has lost the lease.
    pub const EPOCH: &str = "x-outbox-epoch";
    /// The original place of a dead letter that an operator sent again: `topic/partition/offset`.
    pub const REDRIVEN_FROM: &str = "x-redriven-from";
    /// The event id as Debezium's outbox router writes it; see [`super::event_id_from_base64`].
    pub const DEBEZIUM_ID: &str = "id";
    /// The event type as Debezium's outbox router writes it: the value of the column, without a version.
    pub const DEBEZIUM_TYPE: &str = "event_type";
}

/// Reads an event id as Debezium writes `outbox.event_id`: 16 bytes in padded standard Base64.
pub fn event_id_from_base64(text: &str) -> Option<EventId> {
    let bytes = STANDARD.decode(text).ok()?;
    Uuid::from_slice(&bytes).ok().map(EventId)
}

/// The value of a message on `order.returns`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewReturnEvent {
    pub return_id: ReturnId,
    pub order_id: OrderId,
}

/// The value of a message on `order.returns.status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusEvent {
    pub return_id: ReturnId,
    pub order_id: OrderId,
    pub status: Status,
    pub seq: i32,
}

/// The content of the headers of a message.
#[derive(Debug, Clone)]
pub struct Envelope<'a> {
    pub event_id: EventId,
    pub event_type: &'a str,
    pub return_id: ReturnId,
    pub seq: i32,
    pub created_at: OffsetDateTime,
    pub traceparent: Option<&'a str>,
    pub tracestate: Option<&'a str>,
    pub epoch: i64,
}

impl Envelope<'_> {
    /// Folds over the headers in the order in which they are written. It allocates once for all of them, because a relay
    /// calls it for every record.
    pub fn fold_headers<T>(&self, init: T, mut add: impl FnMut(T, &'static str, &str) -> T) -> T {
        let mut text = String::with_capacity(64);
        let mut write = |folded: T, name: &'static str, value: fmt::Arguments<'_>| {
            text.clear();
            text.write_fmt(value)
                .expect("writing to a String cannot fail");
            add(folded, name, &text)
        };
        let time = timestamp_text(self.created_at);
        let mut folded = write(init, header::SPEC_VERSION, format_args!("1.0"));
        folded = write(folded, header::ID, format_args!("{}", self.event_id));
        folded = write(folded, header::TYPE, format_args!("{}.v1", self.event_type));
        folded = write(folded, header::SOURCE, format_args!("/returns"));
        folded = write(folded, header::TIME, format_args!("{time}"));
        folded = write(folded, header::SUBJECT, format_args!("{}", self.return_id));
        folded = write(
            folded,
            header::CONTENT_TYPE,
            format_args!("application/json"),
        );
        folded = write(folded, header::SEQ, format_args!("{}", self.seq));
        folded = write(folded, header::EPOCH, format_args!("{}", self.epoch));
        if let Some(traceparent) = self.traceparent {
            folded = write(folded, header::TRACEPARENT, format_args!("{traceparent}"));
        }
        if let Some(tracestate) = self.tracestate {
            folded = write(folded, header::TRACESTATE, format_args!("{tracestate}"));
        }
        folded
    }

    /// The headers in the order in which they are written.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        self.fold_headers(Vec::new(), |mut headers, name, value| {
            headers.push((name, value.to_owned()));
            headers
        })
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::uuid;

    use super::*;

    #[test]
    fn topic_names_are_legal_and_differ() {
        let problems = |returns: &str, status: &str| {
            let topics = TopicArgs {
                topic_returns: returns.to_owned(),
                topic_status: status.to_owned(),
            };
            topics.problems().len()
        };
        assert_eq!(problems("order.returns", "order.returns.status"), 0);
        assert_eq!(problems("a", "a"), 1);
        assert_eq!(problems("a b", ""), 2);
        assert_eq!(problems("..", &"a".repeat(TOPIC_NAME_MAX)), 1);
    }

    #[test]
    fn payloads_are_pinned() {
        let new = NewReturnEvent {
            return_id: ReturnId(456),
            order_id: OrderId(123),
        };
        assert_eq!(
            serde_json::to_string(&new).expect("plain data"),
            r#"{"return_id":456,"order_id":123}"#
        );
        let status = StatusEvent {
            return_id: ReturnId(456),
            order_id: OrderId(123),
            status: Status::Refunded,
            seq: 4,
        };
        assert_eq!(
            serde_json::to_string(&status).expect("plain data"),
            r#"{"return_id":456,"order_id":123,"status":"refunded","seq":4}"#
        );
    }

    /// Captured from Debezium 3.5.0.Final, except the first and the last, which are the extremes.
    #[test]
    fn an_event_id_from_debezium_is_decoded() {
        for (text, id) in [
            ("AAAAAAAAAAAAAAAAAAAAAA==", 0),
            (
                "AaIIo12vd2ii1F0+YpCC/w==",
                0x01a2_08a3_5daf_7768_a2d4_5d3e_6290_82ff,
            ),
            (
                "AaIIo11scxiGRvjuHb4NFw==",
                0x01a2_08a3_5d6c_7318_8646_f8ee_1dbe_0d17,
            ),
            ("/////////////////////w==", u128::MAX),
        ] {
            let id = EventId(Uuid::from_u128(id));
            assert_eq!(event_id_from_base64(text), Some(id), "{text}");
        }
    }

    #[test]
    fn an_event_id_is_exactly_sixteen_bytes_in_base64() {
        for text in [
            "",
            "==",
            "019ab000-0000-7000-8000-000000000001",
            "AaIIo12vd2ii1F0+YpCC/w",
            "AaIIo12vd2ii1F0+YpCC/w=",
            "AaIIo12vd2ii1F0-YpCC_w==",
            "AaIIo12vd2ii1F0+YpCC/x==",
            "AaIIo12vd2ii1F0+YpCC/ww=",
            "AaIIo12vd2ii1F0+YpC/w==",
            "AaIIo12vd2ii1F0+YpCC//w==",
            "AaIIo12vd2ii1F0+YpCé/w==",
        ] {
            assert_eq!(event_id_from_base64(text), None, "{text}");
        }
    }

    #[test]
    fn headers_are_pinned() {
        let envelope = Envelope {
            event_id: EventId(uuid!("019ab000-0000-7000-8000-000000000001")),
            event_type: "return.initiated",
            return_id: ReturnId(456),
            seq: 1,
            created_at: datetime!(2026-11-23 02:15:00.123456 UTC),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            tracestate: None,
            epoch: 7,
        };
        let text: Vec<String> = envelope
            .headers()
            .into_iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        assert_eq!(
            text,
            [
                "ce_specversion: 1.0",
                "ce_id: 019ab000-0000-7000-8000-000000000001",
                "ce_type: return.initiated.v1",
                "ce_source: /returns",
                "ce_time: 2026-11-23T02:15:00.123456Z",
                "ce_subject: 456",
                "content-type: application/json",
                "seq: 1",
                "x-outbox-epoch: 7",
                "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ]
        );
    }
}
