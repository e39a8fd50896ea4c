//! [`Publish`] by librdkafka.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::{ClientContext, Statistics};
use shared::domain::event::Envelope;
use shared::runtime::kafka::{ClientLog, KafkaArgs, WATCH_INTERVAL_MS, has_forgotten_brokers};
use tokio::sync::mpsc::UnboundedSender;

use super::{DeliveryReport, EnqueueError, Publish, RecordId, SendMode, Topic, TopicProblem};
use crate::pending::Pending;

/// Below every topic's `max.message.bytes`: a broker refuses a whole batch that is larger.
const BATCH_BYTES: usize = 128 * 1024;
const MIN_TOPIC_LIMIT: usize = BATCH_BYTES + 4 * 1024;
/// The client's limit: above every payload that `outbox.payload` (MEDIUMBLOB) can hold, so that the topic's limit decides.
const MAX_RECORD_BYTES: usize = 17 * 1024 * 1024;
/// The broker's default. It applies if we may write to a topic but not read its settings.
const DEFAULT_TOPIC_LIMIT: usize = 1_048_588;
/// librdkafka sends nothing to a partition with five requests in flight, and its thread polls without a pause while a
/// record that has lingered long enough waits behind them. A linger longer than it takes to enqueue one read saves a
/// third of the relay's CPU time: see docs/BENCHMARKS.md.
const BATCHED_LINGER_MS: &str = "5";
const ADMIN_DEADLINE: Duration = Duration::from_secs(5);

/// [`Publish`] by librdkafka. The linger of a producer cannot be changed, so there is one producer for each mode.
pub struct KafkaPublisher {
    producer_config: ClientConfig,
    admin_config: ClientConfig,
    producers: Option<Producers>,
    /// Of all producers, one after the other: an outage may cost some.
    log: ClientLog,
}

struct Producers {
    immediate: ThreadedProducer<Reporter>,
    batched: ThreadedProducer<Reporter>,
}

impl KafkaPublisher {
    pub fn new(args: &KafkaArgs) -> Self {
        let mut producer_config = args.client("outbox-relay");
        producer_config
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "5")
            // A message that timed out would leave a gap (1, 4, 5), so a message stays queued until it is sent.
            .set("message.timeout.ms", "0")
            // The partitioner of Java clients; librdkafka's default maps keys to other partitions.
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("batch.size", BATCH_BYTES.to_string())
            .set("message.max.bytes", MAX_RECORD_BYTES.to_string())
            // After an outage the client reconnects, then asks for the leaders. With librdkafka's default backoff of up
            // to 1 s for each step, the first record was sent after 2.2 s.
            .set("reconnect.backoff.max.ms", "250")
            .set("retry.backoff.max.ms", "250")
            .set("statistics.interval.ms", WATCH_INTERVAL_MS)
            .set("queue.buffering.max.messages", "20000")
            .set("queue.buffering.max.kbytes", "32768");
        Self {
            producer_config,
            admin_config: args.client("outbox-relay-admin"),
            producers: None,
            log: ClientLog::default(),
        }
    }

    /// Limits the queue of each producer to this number of records. Further rows wait in the table.
    #[must_use]
    pub fn with_queue(mut self, records: u32) -> Self {
        let setting = "queue.buffering.max.messages";
        self.producer_config.set(setting, records.to_string());
        self
    }
}

impl std::fmt::Debug for KafkaPublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaPublisher")
            .field("connected", &self.producers.is_some())
            .finish_non_exhaustive()
    }
}

impl Publish for KafkaPublisher {
    fn connect(&mut self, reports: UnboundedSender<DeliveryReport>) -> Result<(), KafkaError> {
        let with_linger = |ms: &str, reports, log| {
            let mut config = self.producer_config.clone();
            config
                .set("linger.ms", ms)
                .create_with_context(Reporter { reports, log })
        };
        // Both have the same brokers, so one of them logs.
        self.producers = Some(Producers {
            immediate: with_linger("0", reports.clone(), Some(self.log.clone()))?,
            batched: with_linger(BATCHED_LINGER_MS, reports, None)?,
        });
        Ok(())
    }

    async fn destroy(&mut self) {
        if let Some(producers) = self.producers.take() {
            let dropped = tokio::task::spawn_blocking(move || {
                // First of all: dropping a producer joins its thread, which takes up to 100 ms, and until then the other
                // producer would keep sending records of shards that another relay may own by now.
                let everything = || PurgeConfig::default().queue().inflight();
                producers.immediate.purge(everything());
                producers.batched.purge(everything());
                drop(producers);
            });
            dropped.await.expect("dropping a producer does not panic");
        }
    }

    fn enqueue(
        &self,
        event: &Pending,
        envelope: &Envelope<'_>,
        id: RecordId,
        mode: SendMode,
    ) -> Result<(), EnqueueError> {
        let producers = self
            .producers
            .as_ref()
            .expect("connected before the first record");
        let producer = match mode {
            SendMode::Immediate => &producers.immediate,
            SendMode::Batched => &producers.batched,
        };
        let headers = envelope.fold_headers(
            OwnedHeaders::new_with_capacity(11),
            |headers, key, value| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            },
        );
        // No timestamp: after an outage the row's time could be beyond the topic's retention.
        let record = BaseRecord::with_opaque_to(&event.topic, id.0)
            .key(&event.msg_key)
            .payload(&event.payload)
            .headers(headers);
        producer
            .send(record)
            .map_err(|(error, _)| match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => EnqueueError::QueueFull,
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => EnqueueError::TooLarge,
                code => EnqueueError::Failed(code.unwrap_or(RDKafkaErrorCode::Fail)),
            })
    }

    fn describe_topic(
        &self,
        topic: String,
    ) -> impl Future<Output = Result<Topic, TopicProblem>> + Send + 'static {
        let config = self.admin_config.clone();
        async move { describe_topic(&config, &topic).await }
    }

    fn list_topics(
        &self,
    ) -> impl Future<Output = Result<HashSet<String>, TopicProblem>> + Send + 'static {
        let config = self.admin_config.clone();
        async move {
            let admin: AdminClient<Quiet> = config
                .create_with_context(Quiet)
                .map_err(|e| TopicProblem::of_error(&e))?;
            fetch_metadata(admin, None, |metadata| {
                let names = metadata.topics().iter().map(|topic| topic.name());
                names.map(str::to_owned).collect()
            })
            .await
        }
    }
}

/// Creates a client for this one request, which is made once per topic and producer.
async fn describe_topic(config: &ClientConfig, topic: &str) -> Result<Topic, TopicProblem> {
    let admin: AdminClient<Quiet> = config
        .create_with_context(Quiet)
        .map_err(|e| TopicProblem::of_error(&e))?;
    let options = AdminOptions::new().request_timeout(Some(ADMIN_DEADLINE));
    let described = admin
        .describe_configs(&[ResourceSpecifier::Topic(topic)], &options)
        .await
        .map_err(|e| TopicProblem::of_error(&e))?;
    // rdkafka drops the error in the response: a topic that is missing or hidden from us looks like one without settings.
    let described = described.into_iter().next().and_then(Result::ok);
    let limit =
        described.and_then(|it| it.get("max.message.bytes")?.value.as_deref()?.parse().ok());
    let partitions = count_partitions(admin, topic).await?;
    let limit = limit.unwrap_or(DEFAULT_TOPIC_LIMIT);
    if limit < MIN_TOPIC_LIMIT {
        return Err(TopicProblem::LimitTooSmall(limit));
    }
    Ok(Topic { limit, partitions })
}

async fn count_partitions(admin: AdminClient<Quiet>, topic: &str) -> Result<usize, TopicProblem> {
    let fetched = fetch_metadata(admin, Some(topic.to_owned()), |metadata| {
        let topic = metadata.topics().first();
        topic.map(|topic| (topic.error(), topic.partitions().len()))
    });
    match fetched.await? {
        Some((None, partitions)) if partitions > 0 => Ok(partitions),
        Some((Some(error), _)) => Err(TopicProblem::in_description(error.into())),
        Some((None, _)) | None => Err(TopicProblem::Missing),
    }
}

/// Of one topic, or of all.
async fn fetch_metadata<T: Send + 'static>(
    admin: AdminClient<Quiet>,
    topic: Option<String>,
    read: impl FnOnce(&Metadata) -> T + Send + 'static,
) -> Result<T, TopicProblem> {
    let fetched = tokio::task::spawn_blocking(move || {
        let metadata = admin
            .inner()
            .fetch_metadata(topic.as_deref(), ADMIN_DEADLINE);
        Ok::<_, KafkaError>(read(&metadata?))
    });
    let fetched = fetched.await.expect("fetching metadata does not panic");
    fetched.map_err(|e| TopicProblem::of_error(&e))
}

/// An admin client whose failures are the results of its requests: it logs nothing.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka client");
    }
}

/// Runs on the producer's polling thread, so it only forwards reports.
struct Reporter {
    reports: UnboundedSender<DeliveryReport>,
    log: Option<ClientLog>,
}

impl Reporter {
    fn send(&self, report: DeliveryReport) {
        // If the receiver is closed, the producer is being destroyed.
        let _ = self.reports.send(report);
    }
}

impl ClientContext for Reporter {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        match &self.log {
            Some(log) => log.line(facility, message),
            None => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(log) = &self.log {
            log.error(&error, reason);
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.send(DeliveryReport::BrokersDown),
            Some(code @ RDKafkaErrorCode::Fatal) => self.send(DeliveryReport::Fatal(code)),
            _ => {}
        }
    }

    fn stats(&self, statistics: Statistics) {
        if let Some(log) = &self.log {
            log.statistics(&statistics);
        }
        if has_forgotten_brokers(&statistics) {
            self.send(DeliveryReport::BrokersForgotten);
        }
    }
}

impl ProducerContext for Reporter {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, id: usize) {
        let id = RecordId(id);
        self.send(match result {
            Ok(message) => {
                let partition = usize::try_from(message.partition());
                DeliveryReport::Delivered(id, partition.expect("it was sent"))
            }
            Err((error, _)) => DeliveryReport::Undelivered(
                id,
                error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
            ),
        });
    }
}
