//! The membership in the consumer group: the client's settings, and joining.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use shared::runtime::kafka::{ClientLog, WATCH_INTERVAL_MS};

use super::rebalance::Rebalancing;
use crate::config::IntakeArgs;
use crate::metrics::Metrics;

/// The consumer group and topic that the intake joins.
pub(super) struct Subscription {
    pub(super) config: ClientConfig,
    pub(super) topic: String,
    pub(super) log: ClientLog,
}

impl Subscription {
    /// Creates a client, which joins the group.
    ///
    /// # Errors
    /// The settings are refused.
    pub(super) fn join(
        &self,
        metrics: &Metrics,
    ) -> Result<StreamConsumer<Rebalancing>, KafkaError> {
        let (rebalances, lag) = (metrics.work.rebalances.clone(), metrics.intake.lag.clone());
        let context = Rebalancing::new(rebalances, lag, self.log.clone());
        let consumer: StreamConsumer<Rebalancing> = self.config.create_with_context(context)?;
        consumer.subscribe(&[&self.topic])?;
        Ok(consumer)
    }
}

/// Settings of the consumer beyond those of every client (librdkafka's CONFIGURATION.md).
pub fn client_config(client: ClientConfig, args: &IntakeArgs) -> ClientConfig {
    let mut config = client;
    if let Some(instance) = &args.consumer_instance_id {
        config.set("group.instance.id", instance);
    }
    config
        .set("group.id", &args.consumer_group)
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        // How long the partitions of a killed consumer stay unread. A needless rebalance costs only duplicates.
        .set("session.timeout.ms", "10000")
        // With fetch.min.bytes=1 the broker answers as soon as there is a record; this bounds how long a fetch is
        // on its way when partitions are resumed or added.
        .set("fetch.wait.max.ms", "50")
        // Small queues: what waits in memory would be fetched again after a rebalance. The default back-off of one
        // second after a full queue would show as latency.
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "10")
        .set("statistics.interval.ms", WATCH_INTERVAL_MS)
        .set("socket.nagle.disable", "true");
    config
}
