//! From a Kafka record to the return it names, or the reason why it names none.
//!
//! A record only says *which* return to look at; everything else is decided on the locked row. Two senders write records,
//! and both are read to the same event: our relay, and Debezium's outbox router where it replaces the relay
//! (docs/EVENTS.md).

mod payload;
mod reason;

use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::message::{BorrowedMessage, Headers, Message};
use shared::domain::event::{event_id_from_base64, header};
use shared::domain::ids::{EventId, OrderId, ReturnId};
use shared::domain::trace_context::TraceContext;
use shared::runtime::clock::unix_millis;
use uuid::Uuid;

pub use payload::MAX_PAYLOAD_BYTES;
use payload::Payload;
pub use reason::Reason;

/// The type of a new return's event, without its version.
const NEW_RETURN: &str = "return.initiated";
/// The version that we know, of the type and of CloudEvents. A later minor version only adds fields.
const MAJOR: &str = "1";
/// Each one costs an unwinding and a line in the log. A record with more of them was made on purpose.
const UNREADABLE_HEADERS_MAX: usize = 8;

/// Name and value; the value may be any bytes, or absent.
pub type RecordHeader = (String, Option<Vec<u8>>);

/// One record, copied out of the client.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Kafka's timestamp in milliseconds, -1 if it has none.
    pub time_ms: i64,
    /// When it was copied, in milliseconds.
    pub taken_ms: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    /// The readable headers, in order; names may repeat.
    pub headers: Vec<RecordHeader>,
    /// Whether every header was readable.
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
            taken_ms: unix_millis(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers,
            headers_readable,
        }
    }

    /// The context of its sender. A bad one never makes the record a dead letter. Agents on the way are known to add a
    /// second `traceparent`; then neither is used.
    pub fn trace(&self) -> Option<TraceContext> {
        let texts = |name: &'static str| {
            let values = self.headers.iter().filter(move |(key, _)| key == name);
            values.map(|(_, value)| value.as_deref().and_then(|text| str::from_utf8(text).ok()))
        };
        let lines = |name| texts(name).map(Option::unwrap_or_default);
        TraceContext::from_headers(lines(header::TRACEPARENT), lines(header::TRACESTATE))
    }

    /// A dead letter that a person sent again.
    pub fn is_redriven(&self) -> bool {
        self.headers
            .iter()
            .any(|(name, _)| name == header::REDRIVEN_FROM)
    }

    /// Its approximate size in memory.
    pub fn bytes(&self) -> usize {
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + length(value))
            .sum();
        length(&self.key) + length(&self.payload) + headers
    }

    /// The text of the header of this name; `None` if there is no such header.
    ///
    /// # Errors
    /// It appears twice, so that readers disagree on which one counts; or it is not text.
    fn header(&self, name: &str) -> Result<Option<&str>, Reason> {
        let mut values = self.headers.iter().filter(|(key, _)| key == name);
        let Some((_, value)) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Reason::DuplicateHeader);
        }
        let text = value.as_deref().map(std::str::from_utf8);
        text.and_then(Result::ok)
            .map(Some)
            .ok_or(Reason::BadHeaders)
    }
}

/// rdkafka panics on a header name that is not UTF-8 (`BorrowedHeaders::try_get` unwraps), which any producer can
/// send; one such record must not end the process. The other headers are kept.
fn copy_headers(message: &BorrowedMessage<'_>) -> (Vec<RecordHeader>, bool) {
    let mut copied = Vec::new();
    let Some(headers) = message.headers() else {
        return (copied, true);
    };
    let mut unreadable = 0;
    for index in 0..headers.count() {
        let header = catch_unwind(AssertUnwindSafe(|| {
            let header = headers.get(index);
            (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
        }));
        match header {
            Ok(header) => copied.push(header),
            Err(_) => unreadable += 1,
        }
        if unreadable == UNREADABLE_HEADERS_MAX {
            break;
        }
    }
    (copied, unreadable == 0)
}

/// The return that a record names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReturn {
    pub return_id: ReturnId,
    pub order_id: OrderId,
    /// `None` for a bare message: there is one new-return event per return, so the row has it.
    pub event_id: Option<EventId>,
}

/// Reads a record. Unknown fields, headers and later minor versions are ignored. Known ones must be right and appear
/// once.
///
/// # Errors
/// The reason of its dead letter.
pub fn parse(record: &Record) -> Result<NewReturn, Reason> {
    if !record.headers_readable {
        return Err(Reason::UnreadableHeader);
    }
    check_form(record)?;
    let event_id = event_id(record)?;
    let payload = Payload::read(record.payload.as_deref().unwrap_or_default())?;
    check_agreement(record, &payload)?;
    Ok(NewReturn {
        return_id: payload.return_id,
        order_id: payload.order_id,
        event_id,
    })
}

fn check_form(record: &Record) -> Result<(), Reason> {
    if !record
        .header(header::SPEC_VERSION)?
        .is_none_or(is_known_version)
    {
        return Err(Reason::UnknownSpecVersion);
    }
    if !is_new_return(record)? {
        return Err(Reason::UnknownType);
    }
    // CloudEvents has a second form whose value is an envelope; only this header distinguishes it from ours.
    if !record.header(header::CONTENT_TYPE)?.is_none_or(is_json) {
        return Err(Reason::OtherContentType);
    }
    Ok(())
}

/// A record without a type counts as a bare new return. Debezium's type has no version and counts as ours.
fn is_new_return(record: &Record) -> Result<bool, Reason> {
    if let Some(text) = record.header(header::TYPE)? {
        let parts = text.rsplit_once(".v");
        return Ok(
            parts.is_some_and(|(name, version)| name == NEW_RETURN && is_known_version(version))
        );
    }
    let name = record.header(header::DEBEZIUM_TYPE)?;
    Ok(name.is_none_or(|name| name == NEW_RETURN))
}

/// Our major version with any minor version: `1`, `1.0`, `1.7.2`.
fn is_known_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = text.split('.');
    parts.next() == Some(MAJOR) && parts.all(is_number)
}

/// Parameters such as `charset` are ignored: JSON is UTF-8, or it is not read.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

fn event_id(record: &Record) -> Result<Option<EventId>, Reason> {
    let id = if let Some(text) = record.header(header::ID)? {
        event_id_from_text(text)
    } else if let Some(text) = record.header(header::DEBEZIUM_ID)? {
        event_id_from_base64(text)
    } else {
        return Ok(None);
    };
    id.map(Some).ok_or(Reason::BadEventId)
}

/// Only in the spelling that is sent. Consumers that deduplicate by text treat another spelling as another event.
fn event_id_from_text(text: &str) -> Option<EventId> {
    let id = Uuid::try_parse(text).ok()?;
    let spelled = *id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text;
    spelled.then_some(EventId(id))
}

/// Headers and key must not contradict the value: this topic holds first events only, and the key chose the partition that
/// keeps its order's events in order.
fn check_agreement(record: &Record, payload: &Payload) -> Result<(), Reason> {
    if payload.seq.is_some_and(|seq| seq != 1)
        || record.header(header::SEQ)?.is_some_and(|seq| seq != "1")
    {
        return Err(Reason::OtherSeq);
    }
    let subject = record.header(header::SUBJECT)?;
    if subject.is_some_and(|subject| subject != payload.return_id.to_string()) {
        return Err(Reason::OtherSubject);
    }
    let key = record.key.as_deref();
    if key.is_some_and(|key| key != payload.order_id.to_string().as_bytes()) {
        return Err(Reason::OtherKey);
    }
    Ok(())
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
