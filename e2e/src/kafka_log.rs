//! Everything that is in a topic, as any reader would see it.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

/// One record.
#[derive(Debug, Clone)]
pub struct Record {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub payload: String,
    /// In the order in which they were written.
    pub headers: Vec<(String, String)>,
}

impl Record {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The position in its return's history.
    pub fn seq(&self) -> Option<i64> {
        self.header("seq")?.parse().ok()
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads each topic from its first record to its end, partition by partition.
///
/// # Errors
/// Kafka is away or a topic is missing.
pub async fn read_all(brokers: &str, topics: &[&str]) -> anyhow::Result<Vec<Record>> {
    let brokers = brokers.to_owned();
    let topics: Vec<String> = topics.iter().map(|&topic| topic.to_owned()).collect();
    let read = move || {
        let mut records = Vec::new();
        for_each(&brokers, &topics, |record| {
            records.push(record);
            Ok(())
        })?;
        Ok(records)
    };
    tokio::task::spawn_blocking(read).await?
}

/// As [`read_all`], one record at a time, for logs that do not fit into memory. Blocks.
///
/// # Errors
/// Kafka is away, a topic is missing, or `take` fails.
pub fn for_each(
    brokers: &str,
    topics: &[String],
    mut take: impl FnMut(Record) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "e2e-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .create()?;
    let (assignment, mut ends) = everything(&consumer, topics)?;
    consumer.assign(&assignment)?;
    while !ends.is_empty() {
        let message = consumer.poll(TIMEOUT).context("no record in time")??;
        let at = (message.topic().to_owned(), message.partition());
        if ends
            .get(&at)
            .is_some_and(|end| message.offset() + 1 >= *end)
        {
            ends.remove(&at);
        }
        take(record(&message))?;
    }
    Ok(())
}

/// How many records of a topic a group has not committed. What a member has stored and not yet committed counts: let
/// the members leave first.
///
/// # Errors
/// Kafka is away or the topic is missing.
pub async fn behind(brokers: &str, group: &str, topic: &str) -> anyhow::Result<i64> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false");
    let topic = topic.to_owned();
    let read = move || {
        let consumer: BaseConsumer = config.create()?;
        let (assignment, ends) = everything(&consumer, std::slice::from_ref(&topic))?;
        let committed = consumer.committed_offsets(assignment, TIMEOUT)?;
        let mut behind = 0;
        for ((topic, partition), end) in ends {
            let found = committed.find_partition(&topic, partition);
            behind += match found.map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => end - offset,
                // Nothing was ever committed.
                _ => end,
            };
        }
        Ok(behind)
    };
    tokio::task::spawn_blocking(read).await?
}

type Ends = HashMap<(String, i32), i64>;

/// Every partition that holds a record, from its beginning, and where it ends now.
fn everything(
    consumer: &BaseConsumer,
    topics: &[String],
) -> anyhow::Result<(TopicPartitionList, Ends)> {
    let mut ends = Ends::new();
    let mut assignment = TopicPartitionList::new();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        let partitions = metadata.topics().first().context("metadata")?.partitions();
        for partition in partitions {
            let (first, end) = consumer.fetch_watermarks(topic, partition.id(), TIMEOUT)?;
            if end > first {
                ends.insert((topic.clone(), partition.id()), end);
                assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
            }
        }
    }
    Ok((assignment, ends))
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let text =
        |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let headers = message.headers().map(|headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), text(header.value)))
            .collect()
    });
    Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: text(message.key()),
        payload: text(message.payload()),
        headers: headers.unwrap_or_default(),
    }
}
