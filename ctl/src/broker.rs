//! The cluster's brokers and our topics, as plain values.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use serde::Serialize;
use shared::runtime::kafka::KafkaArgs;

use crate::error::CtlError;

/// For one request to Kafka.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Brokers learn of a new topic some moments after it was created.
const METADATA_POLL: Duration = Duration::from_millis(50);

/// An admin client.
pub(crate) struct Broker {
    /// The bootstrap servers, for messages.
    address: String,
    client: Arc<AdminClient<DefaultClientContext>>,
}

/// A topic as it should be.
#[derive(Debug, Clone)]
pub(crate) struct WantedTopic {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) replication: i32,
    pub(crate) settings: TopicSettings,
}

/// A topic as it is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TopicState {
    pub(crate) name: String,
    pub(crate) partitions: usize,
    /// Copies of the partition that has the fewest.
    pub(crate) replication: usize,
    #[serde(flatten)]
    pub(crate) settings: TopicSettings,
}

/// A topic's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TopicSettings {
    pub(crate) cleanup_policy: String,
    /// -1 means for ever.
    pub(crate) retention_ms: i64,
    pub(crate) max_message_bytes: i64,
    pub(crate) min_insync_replicas: i64,
}

/// Whether `create` created the topic or found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Creation {
    Created,
    Existed,
}

impl Broker {
    /// A client that connects when first used.
    pub(crate) fn new(args: &KafkaArgs) -> Result<Self, CtlError> {
        let client = args.client("returnsctl").create()?;
        Ok(Self {
            address: args.kafka_brokers.clone(),
            client: Arc::new(client),
        })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The number of known brokers.
    pub(crate) async fn count(&self) -> Result<usize, CtlError> {
        self.metadata(|metadata| metadata.brokers().len()).await
    }

    /// The topic's present state, or `None` if there is no such topic.
    pub(crate) async fn topic(&self, name: &str) -> Result<Option<TopicState>, CtlError> {
        let Some((partitions, replication)) = self.shape(name).await? else {
            return Ok(None);
        };
        let settings = self.settings(name).await?;
        Ok(Some(TopicState {
            name: name.to_owned(),
            partitions,
            replication,
            settings,
        }))
    }

    /// The topic's number of partitions, or `None` if there is no such topic.
    pub(crate) async fn partitions(&self, name: &str) -> Result<Option<usize>, CtlError> {
        let shape = self.shape(name).await?;
        Ok(shape.map(|(partitions, _)| partitions))
    }

    /// Creates the topic unless it exists.
    pub(crate) async fn create(&self, wanted: &WantedTopic) -> Result<Creation, CtlError> {
        let settings = wanted.settings.pairs();
        let mut topic = NewTopic::new(
            &wanted.name,
            wanted.partitions,
            TopicReplication::Fixed(wanted.replication),
        );
        for (key, value) in &settings {
            topic = topic.set(key, value);
        }
        let results = self.client.create_topics([&topic], &options()).await;
        let results = results.map_err(|error| self.named(error))?;
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(Creation::Existed),
            Some(Err((name, code))) => Err(refused_creation(&name, code)),
            Some(Ok(_)) | None => Ok(Creation::Created),
        }
    }

    /// The state of a topic that was just created: waits until the brokers list it. One of several brokers may list it
    /// before another one knows its configuration.
    pub(crate) async fn await_topic(&self, name: &str) -> Result<TopicState, CtlError> {
        let deadline = Instant::now() + REQUEST_DEADLINE;
        loop {
            let found = self.topic(name).await;
            if let Ok(Some(state)) = found {
                return Ok(state);
            }
            if Instant::now() > deadline {
                found?;
                return Err(CtlError::Problem(format!(
                    "topic {name} was created, but Kafka does not list it after {} s",
                    REQUEST_DEADLINE.as_secs()
                )));
            }
            tokio::time::sleep(METADATA_POLL).await;
        }
    }

    async fn shape(&self, name: &str) -> Result<Option<(usize, usize)>, CtlError> {
        let wanted = name.to_owned();
        self.metadata(move |metadata| shape(metadata, &wanted))
            .await
    }

    /// Requests all topics: a metadata request that names a topic can make a broker create it.
    async fn metadata<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Metadata) -> T + Send + 'static,
    ) -> Result<T, CtlError> {
        let client = Arc::clone(&self.client);
        // The call blocks its thread.
        let response = tokio::task::spawn_blocking(move || {
            let metadata = client.inner().fetch_metadata(None, REQUEST_DEADLINE)?;
            Ok::<T, KafkaError>(read(&metadata))
        });
        let response = response.await.expect("reading metadata does not panic");
        response.map_err(|error| self.named(error))
    }

    fn named(&self, error: KafkaError) -> CtlError {
        CtlError::from(error).at(&self.address)
    }

    async fn settings(&self, name: &str) -> Result<TopicSettings, CtlError> {
        let topic = ResourceSpecifier::Topic(name);
        let response = self.client.describe_configs([&topic], &options()).await;
        let response = response.map_err(|error| self.named(error))?;
        let resource = match response.into_iter().next() {
            Some(Ok(resource)) => resource,
            Some(Err(code)) => return Err(self.named(KafkaError::AdminOp(code))),
            None => return Err(unreadable(name, "its configuration")),
        };
        let text = |key| {
            resource
                .get(key)
                .and_then(|entry| entry.value.clone())
                .ok_or_else(|| unreadable(name, key))
        };
        let number = |key| text(key)?.parse().map_err(|_| unreadable(name, key));
        Ok(TopicSettings {
            cleanup_policy: text("cleanup.policy")?,
            retention_ms: number("retention.ms")?,
            max_message_bytes: number("max.message.bytes")?,
            min_insync_replicas: number("min.insync.replicas")?,
        })
    }
}

impl TopicSettings {
    /// Kafka's name and value of each.
    pub(crate) fn pairs(&self) -> [(&'static str, String); 4] {
        [
            ("cleanup.policy", self.cleanup_policy.clone()),
            ("retention.ms", self.retention_ms.to_string()),
            ("max.message.bytes", self.max_message_bytes.to_string()),
            ("min.insync.replicas", self.min_insync_replicas.to_string()),
        ]
    }
}

/// Number of partitions, and of copies of the partition that has the fewest.
fn shape(metadata: &Metadata, name: &str) -> Option<(usize, usize)> {
    let topic = metadata
        .topics()
        .iter()
        .find(|topic| topic.name() == name)?;
    let partitions = topic.partitions();
    let replication = partitions
        .iter()
        .map(|partition| partition.replicas().len())
        .min()?;
    Some((partitions.len(), replication))
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_DEADLINE))
        .operation_timeout(Some(REQUEST_DEADLINE))
}

fn refused_creation(name: &str, code: RDKafkaErrorCode) -> CtlError {
    let advice = match code {
        RDKafkaErrorCode::InvalidReplicationFactor => {
            ".\nTo do: ask for no more copies than there are brokers (--replication)"
        }
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            ".\nTo do: allow this user to create topics"
        }
        _ => "",
    };
    CtlError::Refused {
        problem: format!("Kafka does not create topic {name}{advice}"),
        source: Box::new(KafkaError::AdminOp(code)),
    }
}

fn unreadable(name: &str, key: &str) -> CtlError {
    CtlError::Problem(format!("Kafka does not report {key} of topic {name}"))
}
