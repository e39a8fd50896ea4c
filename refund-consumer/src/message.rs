//! From a Kafka record to the return it names, or the reason why it names none.
//!
//! Nothing in a record is trusted beyond *which* return to look at: everything else is decided on the locked row.
//! Two senders write records, and both are read to the same event: our relay, and Debezium's outbox router where it
//! stands in for the relay (docs/EVENTS.md).

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::message::{BorrowedMessage, Headers, Message};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::error::Category;
use shared::event::{event_id_from_base64, header};
use shared::ids::{EventId, OrderId, ReturnId};
use shared::trace_context::TraceContext;
use uuid::Uuid;

use crate::dead_letter::Reason;

/// The largest value that is read. A new return takes 40 bytes; the rest is room for added fields.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// The type of a new return's event, without its version.
const NEW_RETURN: &str = "return.initiated";
/// The version whose fields we know. A later minor one only adds fields.
const MAJOR: u32 = 1;

/// Name and value; the value may be anything, or absent.
pub type RecordHeader = (String, Option<Vec<u8>>);

/// One record, copied out of the client.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Kafka's timestamp in milliseconds, -1 if it has none.
    pub time_ms: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    /// As far as they could be read, in order; names may repeat.
    pub headers: Vec<RecordHeader>,
    pub headers_readable: bool,
}

impl Record {
    pub fn copy(message: &BorrowedMessage<'_>) -> Self {
        let (headers, headers_readable) = copy_headers(message);
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            time_ms: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers,
            headers_readable,
        }
    }

    /// Roughly what it holds in memory.
    pub fn bytes(&self) -> usize {
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + length(value))
            .sum();
        length(&self.key) + length(&self.payload) + headers
    }

    /// The value of the last header of this name, if it is text.
    fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(key, _)| key == name)
    }
}

/// rdkafka panics on a header name that is not UTF-8 (`BorrowedHeaders::try_get` unwraps), which any producer can
/// send; one such record must not end the process.
fn copy_headers(message: &BorrowedMessage<'_>) -> (Vec<RecordHeader>, bool) {
    let mut copied = Vec::new();
    let Some(headers) = message.headers() else {
        return (copied, true);
    };
    let readable = catch_unwind(AssertUnwindSafe(|| {
        for header in headers.iter() {
            copied.push((header.key.to_owned(), header.value.map(<[u8]>::to_vec)));
        }
    }));
    (copied, readable.is_ok())
}

/// What a record says: look at this return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReturn {
    pub return_id: ReturnId,
    pub order_id: OrderId,
    /// `None` for a bare message: there is one new-return event per return, so the row tells it.
    pub event_id: Option<EventId>,
    pub trace: Option<TraceContext>,
}

/// Reads a record.
///
/// # Errors
/// The reason under which it is put aside.
pub fn parse(record: &Record) -> Result<NewReturn, Reason> {
    if !record.headers_readable {
        return Err(Reason::BadHeaders);
    }
    if !is_new_return(record)? {
        return Err(Reason::UnknownType);
    }
    let event_id = event_id(record)?;
    let (return_id, order_id) = ids(record.payload.as_deref().unwrap_or_default())?;
    let trace = record.header(header::TRACEPARENT).map(|traceparent| {
        TraceContext::from_headers(Some(traceparent), record.header(header::TRACESTATE))
    });
    Ok(NewReturn {
        return_id,
        order_id,
        event_id,
        trace,
    })
}

/// A record without a type is taken for a bare new return. Debezium's has no version: it stands for ours.
fn is_new_return(record: &Record) -> Result<bool, Reason> {
    if !record.has_header(header::TYPE) {
        if !record.has_header(header::DEBEZIUM_TYPE) {
            return Ok(true);
        }
        let name = record.header(header::DEBEZIUM_TYPE);
        return Ok(name.ok_or(Reason::BadHeaders)? == NEW_RETURN);
    }
    let text = record.header(header::TYPE).ok_or(Reason::BadHeaders)?;
    let Some((name, version)) = text.rsplit_once(".v") else {
        return Ok(false);
    };
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    Ok(name == NEW_RETURN && major == Some(MAJOR))
}

fn event_id(record: &Record) -> Result<Option<EventId>, Reason> {
    let (name, read): (_, fn(&str) -> Option<EventId>) = if record.has_header(header::ID) {
        (header::ID, |text| Uuid::try_parse(text).ok().map(EventId))
    } else if record.has_header(header::DEBEZIUM_ID) {
        (header::DEBEZIUM_ID, event_id_from_base64)
    } else {
        return Ok(None);
    };
    let text = record.header(name).ok_or(Reason::BadHeaders)?;
    read(text).map(Some).ok_or(Reason::BadEventId)
}

fn ids(payload: &[u8]) -> Result<(ReturnId, OrderId), Reason> {
    if payload.is_empty() {
        return Err(Reason::Empty);
    }
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(Reason::TooLarge);
    }
    let UniqueFields(fields) = serde_json::from_slice(payload).map_err(|error| reason(&error))?;
    let id = |name: &str| {
        let value = fields.get(name).ok_or(Reason::MissingField)?;
        value.as_i64().filter(|id| *id > 0).ok_or(Reason::WrongType)
    };
    Ok((ReturnId(id("return_id")?), OrderId(id("order_id")?)))
}

/// serde_json has no category of its own for depth and for our own complaint, so their texts are compared.
fn reason(error: &serde_json::Error) -> Reason {
    let text = error.to_string();
    match error.classify() {
        _ if text.starts_with("recursion limit exceeded") => Reason::TooDeep,
        _ if text.starts_with(DUPLICATE) => Reason::DuplicateKey,
        Category::Data => Reason::WrongType,
        Category::Io | Category::Syntax | Category::Eof => Reason::NotJson,
    }
}

const DUPLICATE: &str = "a key stands twice";

/// A JSON object in which no key stands twice: readers disagree on which of two values counts.
struct UniqueFields(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for UniqueFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = UniqueFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueFields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    if fields.insert(key, value).is_some() {
                        return Err(A::Error::custom(DUPLICATE));
                    }
                }
                Ok(UniqueFields(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &[u8], headers: &[(&str, &str)]) -> Record {
        Record {
            payload: Some(payload.to_vec()),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec())))
                .collect(),
            headers_readable: true,
            ..Record::default()
        }
    }

    const BODY: &[u8] = br#"{"return_id":456,"order_id":123}"#;
    const ID: &str = "019ab000-0000-7000-8000-000000000001";

    #[test]
    fn a_message_of_the_relay_is_read() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = parse(&record(
            BODY,
            &[
                ("ce_id", ID),
                ("ce_type", "return.initiated.v1"),
                ("traceparent", trace),
            ],
        ))
        .expect("good");
        assert_eq!(
            (read.return_id, read.order_id),
            (ReturnId(456), OrderId(123))
        );
        assert_eq!(read.event_id.map(|id| id.to_string()).as_deref(), Some(ID));
        assert_eq!(
            read.trace.map(|t| t.traceparent().to_owned()).as_deref(),
            Some(trace)
        );
    }

    /// Headers as captured from Debezium 3.5.0.Final with the configuration of docs/EVENTS.md.
    #[test]
    fn a_message_of_debezium_is_read_to_the_same_event_as_the_relays() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let body = br#"{"return_id":4,"order_id":4}"#;
        let debezium = parse(&record(
            body,
            &[
                ("id", "AaIIo12vd2ii1F0+YpCC/w=="),
                ("ce_subject", "4"),
                ("seq", "1"),
                ("event_type", "return.initiated"),
                ("created_at", "1795441253804119"),
                ("traceparent", trace),
                ("tracestate", "vendor=abc"),
            ],
        ));
        let relay = parse(&record(
            body,
            &[
                ("ce_id", "01a208a3-5daf-7768-a2d4-5d3e629082ff"),
                ("ce_type", "return.initiated.v1"),
                ("traceparent", trace),
                ("tracestate", "vendor=abc"),
            ],
        ));
        assert!(relay.is_ok());
        assert_eq!(debezium, relay);
    }

    /// Debezium writes an empty column as a header without a value.
    #[test]
    fn a_header_without_a_value_is_no_trace() {
        let mut record = record(BODY, &[("id", "AaIIo1z0cyObi2iIkmAqGg==")]);
        for name in ["traceparent", "tracestate"] {
            record.headers.push((name.to_owned(), None));
        }
        assert_eq!(parse(&record).expect("good").trace, None);
    }

    #[test]
    fn a_bare_message_is_read() {
        let read = parse(&record(BODY, &[])).expect("good");
        assert_eq!(read.event_id, None);
    }

    #[test]
    fn added_fields_and_minor_versions_are_accepted() {
        let more = br#"{"return_id":456,"order_id":123,"channel":"web","nested":{"a":[1]}}"#;
        assert!(parse(&record(more, &[("ce_type", "return.initiated.v1.7")])).is_ok());
    }

    #[test]
    fn every_bad_payload_has_its_reason() {
        let deep = format!(
            r#"{{"return_id":1,"order_id":1,"x":{}}}"#,
            "[".repeat(10_000)
        );
        let large = format!(
            r#"{{"return_id":1,"order_id":1,"x":"{}"}}"#,
            "x".repeat(MAX_PAYLOAD_BYTES)
        );
        let cases: [(&[u8], Reason); 16] = [
            (b"", Reason::Empty),
            (b"not json", Reason::NotJson),
            (b"{\"return_id\":1", Reason::NotJson),
            (b"{\"return_id\":1,\"order_id\":2} x", Reason::NotJson),
            (b"\xff\xfe", Reason::NotJson),
            (deep.as_bytes(), Reason::TooDeep),
            (large.as_bytes(), Reason::TooLarge),
            (
                br#"{"return_id":1,"return_id":2,"order_id":1}"#,
                Reason::DuplicateKey,
            ),
            (
                br#"{"return_id":1,"order_id":1,"x":1,"x":2}"#,
                Reason::DuplicateKey,
            ),
            (br#"{"return_id":"1","order_id":1}"#, Reason::WrongType),
            (br#"{"return_id":1.5,"order_id":1}"#, Reason::WrongType),
            (br#"{"return_id":-1,"order_id":1}"#, Reason::WrongType),
            (br#"{"return_id":1e30,"order_id":1}"#, Reason::WrongType),
            (br#"{"return_id":null,"order_id":1}"#, Reason::WrongType),
            (br"[1,2]", Reason::WrongType),
            (br#"{"return_id":1}"#, Reason::MissingField),
        ];
        for (payload, reason) in cases {
            let text = String::from_utf8_lossy(&payload[..payload.len().min(60)]).into_owned();
            assert_eq!(parse(&record(payload, &[])), Err(reason), "{text}");
        }
    }

    #[test]
    fn every_bad_header_has_its_reason() {
        for (headers, reason) in [
            ([("ce_type", "return.initiated.v2")], Reason::UnknownType),
            ([("ce_type", "return.refunded.v1")], Reason::UnknownType),
            ([("ce_type", "return.initiated")], Reason::UnknownType),
            ([("ce_id", "456")], Reason::BadEventId),
            ([("event_type", "return.refunded")], Reason::UnknownType),
            ([("event_type", "")], Reason::UnknownType),
            ([("id", ID)], Reason::BadEventId),
            ([("id", "")], Reason::BadEventId),
        ] {
            assert_eq!(parse(&record(BODY, &headers)), Err(reason), "{headers:?}");
        }
        let mut unreadable = record(BODY, &[]);
        unreadable.headers_readable = false;
        assert_eq!(parse(&unreadable), Err(Reason::BadHeaders));
    }
}
