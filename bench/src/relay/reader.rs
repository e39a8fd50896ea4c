//! A consumer of both topics that records when each event arrives.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::system::System;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

const ANSWER: Duration = Duration::from_secs(10);

/// Records when each event id first arrives.
pub(super) struct Arrivals {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<HashMap<Uuid, Instant>>>,
}

impl Arrivals {
    pub(super) fn watch(system: &System) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &system.brokers)
            .set("group.id", "bench-reader")
            .set("enable.auto.commit", "false")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        for topic in &system.topics {
            let metadata = consumer.fetch_metadata(Some(topic), ANSWER)?;
            let partitions = metadata.topics().first().context("metadata")?.partitions();
            for partition in partitions {
                // The ends are read first: a consumer that finds them by itself may miss records that arrive meanwhile.
                let (_, end) = consumer.fetch_watermarks(topic, partition.id(), ANSWER)?;
                assignment.add_partition_offset(topic, partition.id(), Offset::Offset(end))?;
            }
        }
        consumer.assign(&assignment)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || note_arrivals(&consumer, &stopped));
        Ok(Self { stop, thread })
    }

    pub(super) async fn finish(self) -> anyhow::Result<HashMap<Uuid, Instant>> {
        self.stop.store(true, Ordering::Relaxed);
        tokio::task::spawn_blocking(|| self.thread.join())
            .await?
            .map_err(|_| anyhow::anyhow!("the reader panicked"))?
    }
}

fn note_arrivals(
    consumer: &BaseConsumer,
    stop: &AtomicBool,
) -> anyhow::Result<HashMap<Uuid, Instant>> {
    let mut arrivals = HashMap::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message?;
        let now = Instant::now();
        let id = message
            .headers()
            .and_then(|headers| headers.iter().find(|header| header.key == "ce_id")?.value)
            .context("ce_id")?;
        let id: Uuid = std::str::from_utf8(id)?.parse()?;
        arrivals.entry(id).or_insert(now);
    }
    Ok(arrivals)
}
