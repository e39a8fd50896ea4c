//! Readers of both topics: one that checks everything that is there, one that notes when each event arrives.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::kafka_log::{self, Record};
use e2e::system::System;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

pub(super) struct Read {
    /// Different events.
    pub(super) events: u64,
    pub(super) duplicates: u64,
}

/// Reads both topics and checks that each return's events first appear in the order of their seq, without a gap.
pub(super) async fn check_all(system: &System) -> anyhow::Result<Read> {
    let (brokers, topics) = (system.brokers.clone(), system.topics.clone());
    let read = move || {
        let mut log = Log::default();
        kafka_log::for_each(&brokers, &topics, |record| log.take(&record))?;
        Ok(Read {
            events: u64::try_from(log.seen.len())?,
            duplicates: log.duplicates,
        })
    };
    tokio::task::spawn_blocking(read).await?
}

#[derive(Default)]
struct Log {
    seen: HashSet<Uuid>,
    duplicates: u64,
    last_seq: HashMap<i64, i64>,
}

impl Log {
    fn take(&mut self, record: &Record) -> anyhow::Result<()> {
        let event: Uuid = record.header("ce_id").context("ce_id")?.parse()?;
        if !self.seen.insert(event) {
            self.duplicates += 1;
            return Ok(());
        }
        let seq = record.seq().context("seq")?;
        // Seq 1 is alone in its topic.
        if seq > 1 {
            let return_id = record.header("ce_subject").context("ce_subject")?.parse()?;
            let last = self.last_seq.insert(return_id, seq).unwrap_or(1);
            ensure!(
                last + 1 == seq,
                "return {return_id}: seq {seq} first appears after {last}"
            );
        }
        Ok(())
    }
}

/// Notes the moment at which each event id first arrives, from now on.
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
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
            let partitions = metadata.topics().first().context("metadata")?.partitions();
            for partition in partitions {
                assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
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
