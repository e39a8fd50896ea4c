//! [`Publish`] to Kafka, by librdkafka.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::{ClientContext, Statistics};
use shared::runtime::kafka::{KafkaArgs, WATCH_INTERVAL_MS, has_forgotten_brokers};
use tokio::sync::mpsc::UnboundedSender;

use super::{Flow, NotEnqueued, Publish, Report, Token, TopicTrouble};
use crate::pending::Pending;

/// Batches never reach a topic's `max.message.bytes`, or the broker would refuse small records for it.
const BATCH_BYTES: usize = 128 * 1024;
const MIN_TOPIC_LIMIT: usize = BATCH_BYTES + 4 * 1024;
/// The client's own limit: above every payload that `outbox.payload` (MEDIUMBLOB) can hold; the topic's decides.
const MAX_RECORD_BYTES: usize = 17 * 1024 * 1024;
/// The broker's default, for when we may write to a topic but not read its settings.
const DEFAULT_TOPIC_LIMIT: usize = 1_048_588;
/// How long records of a backlog wait for company. librdkafka sends nothing to a partition that has five records in
/// flight, and its thread polls without pause while one that has lingered long enough is queued behind them. Longer
/// than it takes to enqueue one read, this spares a third of the relay's CPU: see docs/BENCHMARKS.md.
const BACKLOG_LINGER_MS: &str = "5";
const ADMIN_DEADLINE: Duration = Duration::from_secs(5);

/// [`Publish`] to Kafka. How long a producer lingers cannot be changed while it lives, so there is one for each flow.
pub struct Kafka {
    producer_config: ClientConfig,
    admin_config: ClientConfig,
    producers: Option<Producers>,
}

struct Producers {
    trickle: ThreadedProducer<Reporter>,
    backlog: ThreadedProducer<Reporter>,
}

impl Kafka {
    pub fn new(args: &KafkaArgs) -> Self {
        let mut producer_config = args.client("outbox-relay");
        producer_config
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "5")
            // A message that timed out would leave a hole: 1, 4, 5. It stays queued until it is sent.
            .set("message.timeout.ms", "0")
            // As Java clients do; librdkafka's own default places keys differently.
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("batch.size", BATCH_BYTES.to_string())
            .set("message.max.bytes", MAX_RECORD_BYTES.to_string())
            // A broker that is back must first be reached and then asked who leads: with librdkafka's own steps of up
            // to 1 s each the first record was out after 2.2 s.
            .set("reconnect.backoff.max.ms", "250")
            .set("retry.backoff.max.ms", "250")
            .set("statistics.interval.ms", WATCH_INTERVAL_MS)
            .set("queue.buffering.max.messages", "20000")
            .set("queue.buffering.max.kbytes", "32768");
        Self {
            producer_config,
            admin_config: args.client("outbox-relay-admin"),
            producers: None,
        }
    }

    /// A queue of at most so many records; what does not fit waits in the table.
    #[must_use]
    pub fn with_queue(mut self, records: u32) -> Self {
        let setting = "queue.buffering.max.messages";
        self.producer_config.set(setting, records.to_string());
        self
    }
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka")
            .field("connected", &self.producers.is_some())
            .finish_non_exhaustive()
    }
}

impl Publish for Kafka {
    fn connect(&mut self, reports: UnboundedSender<Report>) -> Result<(), KafkaError> {
        let with_linger = |ms: &str, reports| {
            let mut config = self.producer_config.clone();
            config
                .set("linger.ms", ms)
                .create_with_context(Reporter { reports })
        };
        self.producers = Some(Producers {
            trickle: with_linger("0", reports.clone())?,
            backlog: with_linger(BACKLOG_LINGER_MS, reports)?,
        });
        Ok(())
    }

    async fn destroy(&mut self) {
        if let Some(producers) = self.producers.take() {
            let dropped = tokio::task::spawn_blocking(move || {
                // Before anything waits: dropping joins a thread that looks up every 100 ms, and until its turn comes
                // a full producer would go on sending what may be another relay's by now.
                let everything = || PurgeConfig::default().queue().inflight();
                producers.trickle.purge(everything());
                producers.backlog.purge(everything());
                drop(producers);
            });
            dropped.await.expect("dropping a producer does not panic");
        }
    }

    fn enqueue(
        &self,
        event: &Pending,
        epoch: i64,
        token: Token,
        flow: Flow,
    ) -> Result<(), NotEnqueued> {
        let producers = self
            .producers
            .as_ref()
            .expect("connected before the first record");
        let producer = match flow {
            Flow::Trickle => &producers.trickle,
            Flow::Backlog => &producers.backlog,
        };
        let headers = event.envelope(epoch).fold_headers(
            OwnedHeaders::new_with_capacity(11),
            |headers, key, value| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            },
        );
        // No timestamp: a row's own time could be past the topic's retention after an outage.
        let record = BaseRecord::with_opaque_to(&event.topic, token.0)
            .key(&event.msg_key)
            .payload(&event.payload)
            .headers(headers);
        producer
            .send(record)
            .map_err(|(error, _)| match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => NotEnqueued::QueueFull,
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => NotEnqueued::TooLarge,
                code => NotEnqueued::Failed(code.unwrap_or(RDKafkaErrorCode::Fail)),
            })
    }

    fn topic_limit(
        &self,
        topic: String,
    ) -> impl Future<Output = Result<usize, TopicTrouble>> + Send + 'static {
        let config = self.admin_config.clone();
        async move { describe_limit(&config, &topic).await }
    }
}

/// A client of its own for one question: asked once per topic and producer.
async fn describe_limit(config: &ClientConfig, topic: &str) -> Result<usize, TopicTrouble> {
    let admin: AdminClient<DefaultClientContext> =
        config.create().map_err(|e| TopicTrouble::of_error(&e))?;
    let options = AdminOptions::new().request_timeout(Some(ADMIN_DEADLINE));
    let described = admin
        .describe_configs(&[ResourceSpecifier::Topic(topic)], &options)
        .await
        .map_err(|e| TopicTrouble::of_error(&e))?;
    // rdkafka drops the answer's error: a topic that is missing or hidden from us looks like one without settings.
    let described = described.into_iter().next().and_then(Result::ok);
    let limit =
        described.and_then(|it| it.get("max.message.bytes")?.value.as_deref()?.parse().ok());
    let limit = match limit {
        Some(limit) => limit,
        None => exists(admin, topic).await.map(|()| DEFAULT_TOPIC_LIMIT)?,
    };
    if limit < MIN_TOPIC_LIMIT {
        return Err(TopicTrouble::LimitTooSmall(limit));
    }
    Ok(limit)
}

async fn exists(admin: AdminClient<DefaultClientContext>, topic: &str) -> Result<(), TopicTrouble> {
    let name = topic.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(Some(&name), ADMIN_DEADLINE)?;
        Ok::<_, KafkaError>(metadata.topics().first().and_then(MetadataTopic::error))
    });
    match asked
        .await
        .expect("asking does not panic")
        .map_err(|e| TopicTrouble::of_error(&e))?
    {
        None => Ok(()),
        Some(error) => Err(TopicTrouble::of(error.into())),
    }
}

/// Runs on the producer's polling thread: must only pass on what it is told.
struct Reporter {
    reports: UnboundedSender<Report>,
}

impl Reporter {
    fn tell(&self, report: Report) {
        // Nobody listens any more: the producer is being destroyed.
        let _ = self.reports.send(report);
    }
}

impl ClientContext for Reporter {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // Settings that we chose knowingly are warned about at every new producer; whatever a person should act on
        // is told by the pump.
        if facility == "CONFWARN" {
            tracing::debug!(facility, "librdkafka: {message}");
        } else {
            tracing::warn!(facility, "librdkafka: {message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.tell(Report::BrokersDown),
            Some(code @ RDKafkaErrorCode::Fatal) => self.tell(Report::Fatal(code)),
            code => tracing::debug!(?code, reason, "Kafka client"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        if has_forgotten_brokers(&statistics) {
            self.tell(Report::BrokersForgotten);
        }
    }
}

impl ProducerContext for Reporter {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let token = Token(token);
        self.tell(match result {
            Ok(_) => Report::Delivered(token),
            Err((error, _)) => Report::Undelivered(
                token,
                error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
            ),
        });
    }
}
