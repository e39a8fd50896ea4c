//! Two Kafka topics of one test, and reading what is in them.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::env;
use crate::domain::event::TopicArgs;

const TIMEOUT: Duration = Duration::from_secs(30);
const NO_RECORD: KafkaError = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);

/// Names for both topics that no other test uses. The topics stay when the test ends, as [`super::TestDb`] does.
#[derive(Debug, Clone)]
pub struct Topics {
    pub returns: String,
    pub status: String,
    pub partitions: i32,
}

impl Topics {
    /// The names alone; no topic exists yet.
    pub fn named(partitions: i32) -> Self {
        let prefix = format!("test-{}", Uuid::now_v7().simple());
        Self {
            returns: format!("{prefix}.returns"),
            status: format!("{prefix}.status"),
            partitions,
        }
    }

    /// Creates both topics.
    ///
    /// # Panics
    /// Kafka refuses or cannot be reached.
    pub async fn create(&self, max_message_bytes: usize) {
        let limit = max_message_bytes.to_string();
        let new = [&self.returns, &self.status].map(|name| {
            NewTopic::new(name, self.partitions, TopicReplication::Fixed(1))
                .set("max.message.bytes", &limit)
        });
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        let created = admin().create_topics(&new, &options).await;
        for topic in created.expect("Kafka of KAFKA_BROKERS") {
            topic.expect("a new topic");
        }
    }

    /// As the programs know them.
    pub fn args(&self) -> TopicArgs {
        TopicArgs {
            topic_returns: self.returns.clone(),
            topic_status: self.status.clone(),
        }
    }

    /// The topic of an event, by its place in the history of its return.
    pub fn of_seq(&self, seq: i32) -> &str {
        if seq == 1 {
            &self.returns
        } else {
            &self.status
        }
    }
}

/// A client of the broker of `KAFKA_BROKERS`.
pub fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", env("KAFKA_BROKERS"));
    config
}

/// # Panics
/// The client cannot be created.
pub fn admin() -> AdminClient<DefaultClientContext> {
    client().create().expect("an admin client")
}

/// One record, as any consumer sees it.
#[derive(Debug, Clone)]
pub struct Record {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub payload: Vec<u8>,
    /// In the order in which they were written.
    pub headers: Vec<(String, String)>,
    /// The timestamp of the producer or of the append, as the topic is set.
    pub time_ms: i64,
}

impl Record {
    pub fn of(message: &impl Message) -> Self {
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let headers = message.headers().map(|headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), text(header.value)))
                .collect()
        });
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            key: text(message.key()),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers: headers.unwrap_or_default(),
            time_ms: message.timestamp().to_millis().unwrap_or_default(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// # Panics
    /// The record has no such header: the relay did not write it.
    pub fn event_id(&self) -> &str {
        self.header("ce_id").expect("ce_id")
    }

    /// # Panics
    /// As [`Record::event_id`].
    pub fn return_id(&self) -> i64 {
        self.number("ce_subject")
    }

    /// The place in the history of its return.
    ///
    /// # Panics
    /// As [`Record::event_id`].
    pub fn seq(&self) -> i64 {
        self.number("seq")
    }

    /// The epoch of the lease under which it was sent.
    ///
    /// # Panics
    /// As [`Record::event_id`].
    pub fn epoch(&self) -> i64 {
        self.number("x-outbox-epoch")
    }

    fn number(&self, name: &str) -> i64 {
        let value = self.header(name).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("header {name} of {self:?}"))
    }
}

/// Reads topics from the first record to their present end, one record at a time, for topics that do not fit into memory.
/// Blocks.
///
/// # Errors
/// Kafka cannot be reached, a topic is missing, or `take` fails.
pub fn for_each<E: From<KafkaError>>(
    brokers: &str,
    topics: &[&str],
    mut take: impl FnMut(Record) -> Result<(), E>,
) -> Result<(), E> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("fetch.message.max.bytes", "8388608")
        .create()?;
    let (assignment, mut ends) = filled_partitions(&consumer, topics)?;
    consumer.assign(&assignment)?;
    while !ends.is_empty() {
        let message = consumer.poll(TIMEOUT).unwrap_or(Err(NO_RECORD))?;
        let record = Record::of(&message);
        let partition = (record.topic.clone(), record.partition);
        if ends
            .get(&partition)
            .is_some_and(|end| record.offset + 1 >= *end)
        {
            ends.remove(&partition);
        }
        take(record)?;
    }
    Ok(())
}

/// Everything that is in these topics now, each partition in its order.
///
/// # Errors
/// As [`for_each`].
///
/// # Panics
/// The thread that reads does.
pub async fn read_all(brokers: &str, topics: &[&str]) -> KafkaResult<Vec<Record>> {
    let brokers = brokers.to_owned();
    let topics: Vec<String> = topics.iter().map(|&topic| topic.to_owned()).collect();
    let read = move || {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let mut records = Vec::new();
        for_each(&brokers, &topics, |record| {
            records.push(record);
            Ok::<_, KafkaError>(())
        })?;
        Ok(records)
    };
    tokio::task::spawn_blocking(read).await.expect("no panic")
}

/// How many records of a topic a group has not committed. Records that a member has processed and not yet committed count:
/// let the members leave first.
///
/// # Errors
/// As [`for_each`].
///
/// # Panics
/// The thread that reads does.
pub async fn lag(brokers: &str, group: &str, topic: &str) -> KafkaResult<i64> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false");
    let topic = topic.to_owned();
    let read = move || {
        let consumer: BaseConsumer = config.create()?;
        let (assignment, ends) = filled_partitions(&consumer, &[&topic])?;
        let committed = consumer.committed_offsets(assignment, TIMEOUT)?;
        let behind = ends.iter().map(|((topic, partition), end)| {
            match committed
                .find_partition(topic, *partition)
                .map(|found| found.offset())
            {
                Some(Offset::Offset(offset)) => end - offset,
                // Nothing was ever committed.
                _ => *end,
            }
        });
        Ok(behind.sum())
    };
    tokio::task::spawn_blocking(read).await.expect("no panic")
}

/// The end offset of each partition.
type Ends = HashMap<(String, i32), i64>;

/// Every partition that has a record, from its beginning, and its end offset now.
fn filled_partitions(
    consumer: &BaseConsumer,
    topics: &[&str],
) -> KafkaResult<(TopicPartitionList, Ends)> {
    let mut ends = HashMap::new();
    let mut assignment = TopicPartitionList::new();
    for &topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        for partition in metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions())
        {
            let (first, end) = consumer.fetch_watermarks(topic, partition.id(), TIMEOUT)?;
            if end > first {
                ends.insert((topic.to_owned(), partition.id()), end);
                assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
            }
        }
    }
    Ok((assignment, ends))
}
