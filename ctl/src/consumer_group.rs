//! A consumer group as Kafka knows it: its members with their partitions, and how much of a topic it has not read.

mod assignment;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;
use serde::Serialize;
use shared::runtime::kafka::KafkaArgs;

use crate::error::CtlError;
use crate::text::counted;

/// Which consumers to look at.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct GroupArgs {
    /// Kafka consumer group of the refund consumers. Give this command the value of the consumer's setting.
    #[arg(long, env = "CONSUMER_GROUP", default_value = "refund-consumer")]
    pub(crate) consumer_group: String,
}

/// See the module. The names are those of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct GroupState {
    pub(crate) group: String,
    pub(crate) topic: String,
    /// Records behind the committed offsets.
    pub(crate) lag: i64,
    pub(crate) members: Vec<Member>,
    pub(crate) partitions: Vec<PartitionLag>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Member {
    pub(crate) client_id: String,
    pub(crate) host: String,
    /// Ascending; empty while the group rebalances.
    pub(crate) partitions: Vec<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PartitionLag {
    pub(crate) partition: i32,
    pub(crate) lag: i64,
}

impl GroupState {
    /// For a person.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{}, {} not read",
            counted(
                i64::try_from(self.members.len()).unwrap_or(i64::MAX),
                "member"
            ),
            counted(self.lag, "record")
        )
    }
}

/// What Kafka has of a topic and its readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// All topics of the cluster.
    pub(crate) topics: Vec<String>,
    /// `None` if there is no such topic.
    pub(crate) group: Option<GroupState>,
}

/// A client that joins no group and commits nothing.
#[derive(Clone)]
pub(crate) struct GroupReader {
    /// The bootstrap servers, for messages.
    address: String,
    group: String,
    client: Arc<BaseConsumer>,
}

impl GroupReader {
    /// It connects when first used.
    ///
    /// # Errors
    /// The settings of Kafka are wrong.
    pub(crate) fn new(kafka: &KafkaArgs, group: &str) -> Result<Self, CtlError> {
        let mut config = kafka.client("returnsctl");
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false");
        Ok(Self {
            address: kafka.kafka_brokers.clone(),
            group: group.to_owned(),
            client: Arc::new(config.create()?),
        })
    }

    /// # Errors
    /// Kafka does not respond within this time, or does not allow it.
    pub(crate) async fn read(&self, topic: &str, within: Duration) -> Result<Found, CtlError> {
        let (reader, topic) = (self.clone(), topic.to_owned());
        // The calls block their thread.
        let read =
            tokio::task::spawn_blocking(move || reader.found(&topic, Instant::now() + within));
        let found = read.await.expect("reading a group does not panic");
        found.map_err(|error| CtlError::from(error).at(&self.address))
    }

    fn found(&self, topic: &str, deadline: Instant) -> Result<Found, KafkaError> {
        // All topics: a request that names a topic can make a broker create it.
        let metadata = self.client.fetch_metadata(None, left(deadline))?;
        let topics = metadata.topics();
        let ours = topics.iter().find(|found| found.name() == topic);
        let partitions = ours.map(|topic| topic.partitions().iter().map(|one| one.id()));
        Ok(Found {
            topics: topics.iter().map(|topic| topic.name().to_owned()).collect(),
            group: partitions
                .map(|partitions| self.state(topic, partitions.collect(), deadline))
                .transpose()?,
        })
    }

    fn state(
        &self,
        topic: &str,
        partitions: Vec<i32>,
        deadline: Instant,
    ) -> Result<GroupState, KafkaError> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(topic, partition);
        }
        let committed = self.client.committed_offsets(list, left(deadline))?;
        let mut partitions = Vec::new();
        for committed in committed.elements() {
            let partition = committed.partition();
            let (low, high) = self
                .client
                .fetch_watermarks(topic, partition, left(deadline))?;
            let lag = match committed.offset() {
                Offset::Offset(next) => high - next.clamp(low, high),
                // Nothing was committed: the group begins at the beginning.
                _ => high - low,
            };
            partitions.push(PartitionLag { partition, lag });
        }
        Ok(GroupState {
            group: self.group.clone(),
            topic: topic.to_owned(),
            lag: partitions.iter().map(|one| one.lag).sum(),
            members: self.members(topic, left(deadline))?,
            partitions,
        })
    }

    fn members(&self, topic: &str, timeout: Duration) -> Result<Vec<Member>, KafkaError> {
        let groups = self.client.fetch_group_list(Some(&self.group), timeout)?;
        let members = groups.groups().iter().flat_map(|group| group.members());
        let mut members: Vec<Member> = members
            .map(|member| Member {
                client_id: member.client_id().to_owned(),
                host: member.client_host().trim_start_matches('/').to_owned(),
                partitions: assignment::partitions(member.assignment().unwrap_or_default(), topic),
            })
            .collect();
        members.sort_by(|a, b| (&a.partitions, &a.client_id).cmp(&(&b.partitions, &b.client_id)));
        Ok(members)
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
