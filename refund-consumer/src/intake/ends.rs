//! Where the assigned partitions end, asked for every few seconds: one request to each broker that leads some of them.
//!
//! The client's statistics show the end as of the last fetch, and a paused partition is not fetched (librdkafka's
//! `rd_kafka_toppar_fetch_decide`). So what arrives while this process takes nothing would not count.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::KafkaError;

use super::rebalance::Rebalancing;
use crate::lag::Lag;

const PERIOD: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks, one question at a time.
#[derive(Debug)]
pub(super) struct EndReads {
    lag: Lag,
    began: Option<Instant>,
    /// The call blocks. A thread of its own, because the runtime would wait for one of its threads at the end.
    running: Option<JoinHandle<()>>,
}

impl EndReads {
    pub(super) fn new(lag: Lag) -> Self {
        Self {
            lag,
            began: None,
            running: None,
        }
    }

    pub(super) fn ask_if_due(&mut self, consumer: &Arc<StreamConsumer<Rebalancing>>) {
        let is_due = self.began.is_none_or(|began| began.elapsed() >= PERIOD);
        let is_running = self.running.as_ref().is_some_and(|it| !it.is_finished());
        if !is_due || is_running {
            return;
        }
        self.began = Some(Instant::now());
        let (consumer, lag) = (Arc::clone(consumer), self.lag.clone());
        let question = move || {
            // No broker answers: the client's log has it, and the age grows.
            if let Err(error) = ask(&consumer, &lag) {
                tracing::debug!(%error, "the ends of the partitions are not known");
            }
        };
        match thread::Builder::new().spawn(question) {
            Ok(running) => self.running = Some(running),
            // The system has no thread left: refunds matter more than their lag.
            Err(error) => tracing::warn!(%error, "the ends of the partitions cannot be asked for"),
        }
    }

    /// Waits for the running question. Then no other thread holds the client.
    pub(super) fn finish(self) {
        if let Some(running) = self.running {
            // It has no result; a panic is logged.
            let _ = running.join();
        }
    }
}

fn ask(consumer: &StreamConsumer<Rebalancing>, lag: &Lag) -> Result<(), KafkaError> {
    let mut partitions = consumer.assignment()?;
    if partitions.count() == 0 {
        return Ok(());
    }
    // The end is a time to the broker: the latest (ListOffsets, KIP-79).
    partitions.set_all_offsets(Offset::End)?;
    lag.ends(&consumer.offsets_for_times(partitions, TIMEOUT)?);
    Ok(())
}
