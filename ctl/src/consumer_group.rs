//! A consumer group as Kafka knows it: its members, and how much of a topic it has not read.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;
use shared::runtime::kafka::KafkaArgs;

use crate::error::CtlError;

/// For one request to Kafka.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupState {
    pub(crate) members: usize,
    /// Records behind the committed offsets.
    pub(crate) lag: i64,
}

/// Reads the state; `None` if there is no such topic. Joins no group and commits nothing.
///
/// # Errors
/// Kafka does not respond, or does not allow it.
pub(crate) async fn read(
    kafka: &KafkaArgs,
    group: &str,
    topic: &str,
) -> Result<Option<GroupState>, CtlError> {
    let mut config = kafka.client("returnsctl");
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false");
    let (group, topic) = (group.to_owned(), topic.to_owned());
    // The calls block their thread.
    let read = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create()?;
        state(&consumer, &group, &topic)
    });
    let state = read.await.expect("reading a group does not panic");
    state.map_err(|error| CtlError::from(error).at(&kafka.kafka_brokers))
}

fn state(
    consumer: &BaseConsumer,
    group: &str,
    topic: &str,
) -> Result<Option<GroupState>, KafkaError> {
    // All topics: a request that names a topic can make a broker create it.
    let metadata = consumer.fetch_metadata(None, REQUEST_DEADLINE)?;
    let mut topics = metadata.topics().iter();
    let Some(found) = topics.find(|found| found.name() == topic) else {
        return Ok(None);
    };
    let mut partitions = TopicPartitionList::new();
    for partition in found.partitions() {
        partitions.add_partition(topic, partition.id());
    }
    let committed = consumer.committed_offsets(partitions, REQUEST_DEADLINE)?;
    let mut lag = 0;
    for partition in committed.elements() {
        let (low, high) =
            consumer.fetch_watermarks(topic, partition.partition(), REQUEST_DEADLINE)?;
        lag += match partition.offset() {
            Offset::Offset(next) => high - next.clamp(low, high),
            // Nothing was committed: the group begins at the beginning.
            _ => high - low,
        };
    }
    let groups = consumer.fetch_group_list(Some(group), REQUEST_DEADLINE)?;
    let members = groups.groups().iter().map(|found| found.members().len());
    Ok(Some(GroupState {
        members: members.sum(),
        lag,
    }))
}
