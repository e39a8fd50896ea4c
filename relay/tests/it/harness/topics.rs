//! The two topics of a test, which are deleted at its end, and reading all their records.

use std::collections::{HashMap, HashSet};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use shared::test_support::env;
use uuid::Uuid;

use super::{Follower, WAIT_DEADLINE, until};

/// Below the broker's default, so that a test can exceed it with a small record.
pub(crate) const MAX_MESSAGE_BYTES: usize = 200_000;

pub(crate) struct Topics {
    pub(crate) returns: String,
    pub(crate) status: String,
    partitions: i32,
}

/// One Kafka record.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) topic: String,
    pub(crate) key: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) event_id: String,
    pub(crate) return_id: i64,
    pub(crate) seq: i32,
    /// Kafka's timestamp. The topic's settings decide whether it is the producer's or the append's.
    pub(crate) time_ms: i64,
}

impl Topics {
    pub(crate) async fn create(partitions: i32) -> Self {
        let topics = Self::named_only(partitions);
        topics.create_in_kafka().await;
        topics
    }

    /// Names without topics.
    pub(crate) fn named_only(partitions: i32) -> Self {
        let prefix = format!("test-{}", Uuid::now_v7().simple());
        Self {
            returns: format!("{prefix}.returns"),
            status: format!("{prefix}.status"),
            partitions,
        }
    }

    pub(crate) async fn create_in_kafka(&self) {
        let limit = MAX_MESSAGE_BYTES.to_string();
        let new = [&self.returns, &self.status].map(|name| {
            NewTopic::new(name, self.partitions, TopicReplication::Fixed(1))
                .set("max.message.bytes", &limit)
        });
        let options = AdminOptions::new().operation_timeout(Some(WAIT_DEADLINE));
        let made = admin()
            .create_topics(&new, &options)
            .await
            .expect("Kafka of KAFKA_BROKERS");
        for topic in made {
            topic.expect("a new topic");
        }
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

    pub(crate) fn of_seq(&self, seq: i32) -> &str {
        if seq == 1 {
            &self.returns
        } else {
            &self.status
        }
    }

    /// Reads both topics until `enough` returns true, then up to their end. Each partition is in its order. To see all
    /// repeats, wait for an empty outbox first.
    pub(crate) async fn read_until(
        &self,
        what: &str,
        mut enough: impl FnMut(&Received) -> bool,
    ) -> Vec<Received> {
        let consumer = self.consumer(&[&self.returns, &self.status]);
        let mut received = Vec::new();
        let reading = async {
            loop {
                let message = consumer.recv().await.expect("a record");
                received.push(Received::of(&message));
                if received.last().is_some_and(&mut enough) {
                    break;
                }
            }
            // A test must also see duplicates and unexpected records.
            let all = self.records();
            while received.len() < all {
                let message = consumer.recv().await.expect("a record");
                received.push(Received::of(&message));
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
    pub(crate) async fn read_events(&self, count: usize) -> Vec<Received> {
        let mut ids = HashSet::new();
        self.read_until(&format!("{count} events"), |received| {
            ids.insert(received.event_id.clone());
            ids.len() >= count
        })
        .await
    }
}

impl Received {
    pub(super) fn of(message: &impl Message) -> Self {
        let headers: HashMap<String, String> = message
            .headers()
            .expect("headers")
            .iter()
            .map(|h| {
                let value = String::from_utf8_lossy(h.value.unwrap_or_default()).into_owned();
                (h.key.to_owned(), value)
            })
            .collect();
        Self {
            topic: message.topic().to_owned(),
            key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
            payload: message.payload().unwrap_or_default().to_vec(),
            event_id: headers["ce_id"].clone(),
            return_id: headers["ce_subject"].parse().expect("a return id"),
            seq: headers["seq"].parse().expect("a seq"),
            time_ms: message.timestamp().to_millis().expect("a timestamp"),
            headers,
        }
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let names = [self.returns.clone(), self.status.clone()];
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let names = [names[0].as_str(), names[1].as_str()];
                // Some tests never create them.
                let _ = admin().delete_topics(&names, &AdminOptions::new()).await;
            });
        });
        let _ = deleted.join();
    }
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", env("KAFKA_BROKERS"));
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    client().create().expect("an admin client")
}
