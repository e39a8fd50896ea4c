//! What these tests do with two topics: change their settings, and read while the relay writes.

use std::collections::HashSet;
use std::ops::Deref;

use rdkafka::admin::{AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use shared::test_support::topics::{self, Record, admin, client};

use super::{Follower, WAIT_DEADLINE, until};

/// Below the broker's default, so that a test can exceed it with a small record.
pub(crate) const MAX_MESSAGE_BYTES: usize = 200_000;

pub(crate) struct Topics(topics::Topics);

impl Deref for Topics {
    type Target = topics::Topics;

    fn deref(&self) -> &topics::Topics {
        &self.0
    }
}

impl Topics {
    pub(crate) async fn create(partitions: i32) -> Self {
        let topics = Self::named_only(partitions);
        topics.create_in_kafka().await;
        topics
    }

    /// Names without topics.
    pub(crate) fn named_only(partitions: i32) -> Self {
        Self(topics::Topics::named(partitions))
    }

    pub(crate) async fn create_in_kafka(&self) {
        self.0.create(MAX_MESSAGE_BYTES).await;
    }

    /// Deletes a topic, and waits until no broker knows it.
    pub(crate) async fn delete_one(&self, name: &str) {
        let deleted = admin().delete_topics(&[name], &AdminOptions::new()).await;
        deleted
            .expect("Kafka of KAFKA_BROKERS")
            .remove(0)
            .expect("a topic of ours");
        until("the topic is gone", || async {
            self.partitions_of(name) == 0
        })
        .await;
    }

    fn partitions_of(&self, name: &str) -> usize {
        let client: BaseConsumer = client().create().expect("a consumer");
        let metadata = client.fetch_metadata(None, WAIT_DEADLINE);
        let metadata = metadata.expect("Kafka of KAFKA_BROKERS");
        let found = metadata.topics().iter().find(|topic| topic.name() == name);
        found.map_or(0, |topic| topic.partitions().len())
    }

    /// Creates a topic beside the two.
    pub(crate) async fn create_one(&self, name: &str) {
        let topic = NewTopic::new(name, self.partitions, TopicReplication::Fixed(1));
        let created = admin().create_topics(&[topic], &AdminOptions::new()).await;
        created
            .expect("Kafka of KAFKA_BROKERS")
            .remove(0)
            .expect("a new topic");
    }

    /// Changes `max.message.bytes` of both topics, and waits until the broker reports the new value.
    pub(crate) async fn set_limit(&self, bytes: usize) {
        self.set("max.message.bytes", &bytes.to_string()).await;
    }

    /// Changes one setting of both topics, resets all others, and waits until the broker reports the new value.
    pub(crate) async fn set(&self, setting: &str, to: &str) {
        let (admin, options) = (admin(), AdminOptions::new());
        for name in [&self.returns, &self.status] {
            let topic = ResourceSpecifier::Topic(name);
            let change = AlterConfig::new(topic).set(setting, to);
            let changed = admin.alter_configs(&[change], &options).await;
            let mut changed = changed.expect("Kafka of KAFKA_BROKERS");
            changed.remove(0).expect("a topic of ours");
            until("the topic has its setting", || async {
                let described = admin.describe_configs(&[topic], &options).await;
                let described = described.expect("Kafka of KAFKA_BROKERS").remove(0);
                let described = described.expect("a topic of ours");
                let value = described.get(setting);
                value.and_then(|it| it.value.as_deref()) == Some(to)
            })
            .await;
        }
    }

    /// Records when each event of a topic arrives.
    pub(crate) fn follow(&self, topic: &str) -> Follower {
        Follower::start(self, topic)
    }

    /// A consumer of these topics from their beginning.
    pub(super) fn consumer(&self, topics: &[&str]) -> StreamConsumer {
        let consumer: StreamConsumer = client()
            .set("group.id", "unused")
            .set("enable.auto.commit", "false")
            .set("fetch.message.max.bytes", "8388608")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        for topic in topics {
            for partition in 0..self.partitions {
                list.add_partition_offset(topic, partition, Offset::Beginning)
                    .expect("valid");
            }
        }
        consumer.assign(&list).expect("assign");
        consumer
    }

    /// Reads both topics until `enough` returns true, then up to their end. Each partition is in its order. To see all
    /// repeats, wait for an empty outbox first.
    pub(crate) async fn read_until(
        &self,
        what: &str,
        mut enough: impl FnMut(&Record) -> bool,
    ) -> Vec<Record> {
        let consumer = self.consumer(&[&self.returns, &self.status]);
        let mut received = Vec::new();
        let reading = async {
            loop {
                let message = consumer.recv().await.expect("a record");
                received.push(Record::of(&message));
                if received.last().is_some_and(&mut enough) {
                    break;
                }
            }
            // A test must also see duplicates and unexpected records.
            let all = self.records();
            while received.len() < all {
                let message = consumer.recv().await.expect("a record");
                received.push(Record::of(&message));
            }
        };
        let read = tokio::time::timeout(WAIT_DEADLINE, reading).await;
        assert!(
            read.is_ok(),
            "not within {WAIT_DEADLINE:?}: {what}; {} records",
            received.len()
        );
        received
    }

    /// The current number of records in both topics. Records are never deleted, so it is the sum of the offsets.
    fn records(&self) -> usize {
        // A client of its own: requests of the consumer would wait behind its fetches.
        let client: BaseConsumer = client().create().expect("a consumer");
        let mut records = 0;
        for topic in [&self.returns, &self.status] {
            for partition in 0..self.partitions {
                let (_, end) = client
                    .fetch_watermarks(topic, partition, WAIT_DEADLINE)
                    .expect("Kafka of KAFKA_BROKERS");
                records += usize::try_from(end).expect("an offset");
            }
        }
        records
    }

    /// Like [`Self::read_until`], for a number of different events.
    pub(crate) async fn read_events(&self, count: usize) -> Vec<Record> {
        let mut ids = HashSet::new();
        self.read_until(&format!("{count} events"), |received| {
            ids.insert(received.event_id().to_owned());
            ids.len() >= count
        })
        .await
    }
}
