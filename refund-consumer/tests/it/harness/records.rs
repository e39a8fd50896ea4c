//! Records as the two senders write them, or changed on purpose, and sending them.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use shared::domain::event::Envelope;
use shared::domain::transition::Filed;
use sqlx::Row;
use time::OffsetDateTime;

use super::{TRACEPARENT, WAIT_DEADLINE, World, body};

/// The parts of a record that its sender decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A message and where it goes; without a partition the key decides.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    pub(crate) message: Message,
    pub(crate) partition: Option<i32>,
    pub(crate) time_ms: Option<i64>,
}

/// A return's first event, as in the outbox.
#[derive(Debug, Clone)]
pub(crate) struct FirstEvent {
    pub(crate) filed: Filed,
    key: String,
    payload: Vec<u8>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    created_at: OffsetDateTime,
    pub(crate) id_in_base64: String,
    created_at_micros: String,
}

impl FirstEvent {
    /// The first event of a return that no database knows.
    pub(crate) fn imagined(filed: Filed, id_in_base64: &str) -> Self {
        Self {
            filed,
            key: filed.order_id.to_string(),
            payload: body(&filed),
            traceparent: Some(TRACEPARENT.to_owned()),
            tracestate: None,
            created_at: OffsetDateTime::UNIX_EPOCH,
            id_in_base64: id_in_base64.to_owned(),
            created_at_micros: "0".to_owned(),
        }
    }
}

impl Message {
    fn of(first: &FirstEvent) -> Self {
        Self {
            key: Some(first.key.clone().into_bytes()),
            payload: Some(first.payload.clone()),
            headers: Vec::new(),
        }
    }

    /// As the relay sends it.
    pub(crate) fn relay(first: &FirstEvent) -> Self {
        let envelope = Envelope {
            event_id: first.filed.event_id,
            event_type: "return.initiated",
            return_id: first.filed.return_id,
            seq: 1,
            created_at: first.created_at,
            traceparent: first.traceparent.as_deref(),
            tracestate: first.tracestate.as_deref(),
            epoch: 1,
        };
        let mut message = Self::of(first);
        for (name, value) in envelope.headers() {
            message = message.and(name, value);
        }
        message
    }

    /// As Debezium's outbox event router sends it, with the configuration of docs/EVENTS.md: an empty column is a
    /// header without a value. The form was captured from Debezium 3.5.0.Final.
    pub(crate) fn debezium(first: &FirstEvent) -> Self {
        let mut message = Self::of(first)
            .and("id", &first.id_in_base64)
            .and("ce_subject", first.filed.return_id.to_string())
            .and("seq", "1")
            .and("event_type", "return.initiated")
            .and("created_at", &first.created_at_micros);
        for (name, value) in [
            ("traceparent", &first.traceparent),
            ("tracestate", &first.tracestate),
        ] {
            let value = value.as_ref().map(|text| text.clone().into_bytes());
            message.headers.push((name.to_owned(), value));
        }
        message
    }

    /// Without any headers.
    pub(crate) fn bare(first: &FirstEvent) -> Self {
        Self::of(first)
    }

    pub(crate) fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    pub(crate) fn without_key(mut self) -> Self {
        self.key = None;
        self
    }

    pub(crate) fn value(mut self, payload: impl AsRef<[u8]>) -> Self {
        self.payload = Some(payload.as_ref().to_vec());
        self
    }

    pub(crate) fn without_value(mut self) -> Self {
        self.payload = None;
        self
    }

    /// Replaces the value of an existing header.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        *self.header(name) = Some(value.as_ref().to_vec());
        self
    }

    /// Adds a header, even if its name exists already.
    pub(crate) fn and(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = Some(value.as_ref().to_vec());
        self.headers.push((name.to_owned(), value));
        self
    }

    /// Keeps the header but removes its value.
    pub(crate) fn null(mut self, name: &str) -> Self {
        *self.header(name) = None;
        self
    }

    fn header(&mut self, name: &str) -> &mut Option<Vec<u8>> {
        let header = self.headers.iter_mut().find(|(of, _)| of == name);
        &mut header.expect("a header of this form").1
    }
}

impl Sending {
    /// To the partition of the key, at the time of sending.
    pub(crate) fn of(message: Message) -> Self {
        Self {
            message,
            partition: None,
            time_ms: None,
        }
    }
}

impl World {
    /// Sends all without waiting in between; returns partition and offset of each.
    pub(crate) async fn send_all(&self, sendings: &[Sending]) -> Vec<(i32, i64)> {
        let mut deliveries = Vec::with_capacity(sendings.len());
        for sending in sendings {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &sending.message.headers {
                let value = value.as_deref();
                headers = headers.insert(Header { key, value });
            }
            let mut record = FutureRecord::to(&self.topics.topic_returns).headers(headers);
            record.key = sending.message.key.as_deref();
            record.payload = sending.message.payload.as_deref();
            record.partition = sending.partition;
            record.timestamp = sending.time_ms;
            let queued = self.producer.send_result(record);
            deliveries.push(
                queued
                    .map_err(|(error, _)| error)
                    .expect("room in the queue"),
            );
        }
        let mut placed = Vec::with_capacity(sendings.len());
        for delivery in deliveries {
            let sent = tokio::time::timeout(WAIT_DEADLINE, delivery).await;
            let sent = sent.expect("Kafka answers").expect("not cancelled");
            let sent = sent.map_err(|(error, _)| error).expect("Kafka takes it");
            placed.push((sent.partition, sent.offset));
        }
        placed
    }

    /// The first event of every return, ascending by return.
    pub(crate) async fn first_events(&self) -> Vec<FirstEvent> {
        let rows = sqlx::query(
            "SELECT r.order_id, o.aggregate_id, o.event_id, o.msg_key, o.payload, o.traceparent, o.tracestate, \
             o.created_at, TO_BASE64(o.event_id) AS id_in_base64, \
             CAST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', o.created_at) AS CHAR) AS created_at_micros \
             FROM outbox AS o JOIN returns AS r ON r.id = o.aggregate_id WHERE o.seq = 1 ORDER BY r.id",
        )
        .fetch_all(&self.db.pool)
        .await
        .expect("the outbox");
        let read = |row: &sqlx::mysql::MySqlRow| FirstEvent {
            filed: Filed {
                order_id: row.get("order_id"),
                return_id: row.get("aggregate_id"),
                event_id: row.get("event_id"),
            },
            key: row.get("msg_key"),
            payload: row.get("payload"),
            traceparent: row.get("traceparent"),
            tracestate: row.get("tracestate"),
            created_at: row.get("created_at"),
            id_in_base64: row.get("id_in_base64"),
            created_at_micros: row.get("created_at_micros"),
        };
        rows.iter().map(read).collect()
    }

    pub(crate) async fn first_event(&self, filed: &Filed) -> FirstEvent {
        let all = self.first_events().await;
        let mut of = all.into_iter();
        of.find(|first| first.filed == *filed)
            .expect("its outbox row")
    }
}

/// A row of `dead_letters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) time_ms: i64,
    pub(crate) message: Message,
    pub(crate) reason: String,
}

impl World {
    /// The dead letters, by partition and offset.
    pub(crate) async fn dead_letters(&self) -> Vec<Kept> {
        let rows = sqlx::query(
            "SELECT topic, partition_id, offset_id, record_time, msg_key, payload, headers, reason FROM dead_letters \
             ORDER BY partition_id, offset_id",
        )
        .fetch_all(&self.db.pool)
        .await
        .expect("dead letters");
        let read = |row: &sqlx::mysql::MySqlRow| Kept {
            topic: row.get("topic"),
            partition: row.get("partition_id"),
            offset: row.get("offset_id"),
            time_ms: row.get("record_time"),
            message: Message {
                key: row.get("msg_key"),
                payload: row.get("payload"),
                headers: read_headers(row.get("headers")),
            },
            reason: row.get("reason"),
        };
        rows.iter().map(read).collect()
    }
}

/// `[["name","hex of the value"], ["name",null]]`.
fn read_headers(stored: &[u8]) -> Vec<(String, Option<Vec<u8>>)> {
    let headers: Vec<(String, Option<String>)> =
        serde_json::from_slice(stored).expect("pairs of name and value");
    let bytes = |hex: String| -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16);
        digits.map(|pair| byte(pair).expect("hex")).collect()
    };
    let read = |(name, value): (String, Option<String>)| (name, value.map(bytes));
    headers.into_iter().map(read).collect()
}
