//! Kafka's own protocol, for records that the client cannot send: header names that are not text, and records without a
//! time. One produce request with one record (<https://kafka.apache.org/protocol>, and "Record Batch" in the
//! implementation notes).

use shared::test_support::env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{World, until};

/// UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE and NOT_LEADER_OR_FOLLOWER: the topic is that new.
const NO_LEADER_YET: [i16; 3] = [3, 5, 6];

/// A record with names as bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawRecord {
    /// -1: none.
    pub(crate) time_ms: i64,
    pub(crate) payload: Vec<u8>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl World {
    /// Sends it to partition 0; returns its offset.
    pub(crate) async fn send_raw(&self, record: &RawRecord) -> i64 {
        let request = produce_request(&self.topics.topic_returns, &batch(record));
        until("the partition has a leader", || self.produce(&request)).await
    }

    /// `None` if the partition has no leader yet: nothing was written.
    async fn produce(&self, request: &[u8]) -> Option<i64> {
        let brokers = env("KAFKA_BROKERS");
        let broker = brokers.split(',').next().expect("a broker");
        let mut broker = TcpStream::connect(broker).await.expect("Kafka");
        let sent = broker.write_all(&sized(request)).await;
        sent.expect("Kafka reads");
        let size = broker.read_u32().await.expect("an answer");
        let mut answer = vec![0; usize::try_from(size).expect("it fits")];
        broker.read_exact(&mut answer).await.expect("all of it");
        // Correlation, number of topics, the topic, number of partitions, the partition: then error and offset.
        let at = 4 + 4 + 2 + self.topics.topic_returns.len() + 4 + 4;
        let error = i16::from_be_bytes(answer[at..at + 2].try_into().expect("two bytes"));
        if NO_LEADER_YET.contains(&error) {
            return None;
        }
        assert_eq!(error, 0, "Kafka refuses the record");
        let offset = i64::from_be_bytes(answer[at + 2..at + 10].try_into().expect("eight bytes"));
        Some(offset)
    }
}

fn produce_request(topic: &str, batch: &[u8]) -> Vec<u8> {
    const PRODUCE: i16 = 0;
    const VERSION: i16 = 7;
    const ABSENT: i16 = -1;
    const ALL_REPLICAS: i16 = -1;
    let mut out = Vec::new();
    put(&mut out, PRODUCE.to_be_bytes());
    put(&mut out, VERSION.to_be_bytes());
    put(&mut out, 1_i32.to_be_bytes());
    put(&mut out, ABSENT.to_be_bytes());
    put(&mut out, ABSENT.to_be_bytes());
    put(&mut out, ALL_REPLICAS.to_be_bytes());
    put(&mut out, 10_000_i32.to_be_bytes());
    put(&mut out, 1_i32.to_be_bytes());
    let length = u16::try_from(topic.len()).expect("a short name");
    put(&mut out, length.to_be_bytes());
    put(&mut out, topic);
    put(&mut out, 1_i32.to_be_bytes());
    put(&mut out, 0_i32.to_be_bytes());
    put(&mut out, sized(batch));
    out
}

/// A record batch of format 2 with one record, from a producer without an id.
fn batch(record: &RawRecord) -> Vec<u8> {
    let mut summed = Vec::new();
    put(&mut summed, 0_i16.to_be_bytes());
    put(&mut summed, 0_i32.to_be_bytes());
    put(&mut summed, record.time_ms.to_be_bytes());
    put(&mut summed, record.time_ms.to_be_bytes());
    put(&mut summed, (-1_i64).to_be_bytes());
    put(&mut summed, (-1_i16).to_be_bytes());
    put(&mut summed, (-1_i32).to_be_bytes());
    put(&mut summed, 1_i32.to_be_bytes());
    put(&mut summed, with_length(Some(&one(record))));
    let mut rest = Vec::new();
    put(&mut rest, (-1_i32).to_be_bytes());
    put(&mut rest, [2]);
    put(&mut rest, crc32c(&summed).to_be_bytes());
    put(&mut rest, summed);
    let mut out = 0_i64.to_be_bytes().to_vec();
    put(&mut out, sized(&rest));
    out
}

fn one(record: &RawRecord) -> Vec<u8> {
    // No attributes, and no distance from the batch's time and offset.
    let mut out = vec![0, 0, 0];
    put(&mut out, with_length(None));
    put(&mut out, with_length(Some(&record.payload)));
    put(&mut out, varint(length(&record.headers)));
    for (name, value) in &record.headers {
        put(&mut out, with_length(Some(name)));
        put(&mut out, with_length(value.as_deref()));
    }
    out
}

fn put(out: &mut Vec<u8>, bytes: impl AsRef<[u8]>) {
    out.extend_from_slice(bytes.as_ref());
}

fn length<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).expect("it fits")
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let size = u32::try_from(bytes.len()).expect("it fits");
    [&size.to_be_bytes(), bytes].concat()
}

fn with_length(bytes: Option<&[u8]>) -> Vec<u8> {
    let size = varint(bytes.map_or(-1, length));
    [&size, bytes.unwrap_or_default()].concat()
}

/// Zigzag, seven bits a byte, the lowest first.
fn varint(number: i64) -> Vec<u8> {
    let mut left = ((number << 1) ^ (number >> 63)).cast_unsigned();
    let mut out = Vec::new();
    loop {
        let low = u8::try_from(left & 0x7f).expect("seven bits");
        left >>= 7;
        if left == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let folded = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (REVERSED_POLYNOMIAL * (crc & 1))
        })
    });
    !folded
}
