//! The poll loop: takes messages, claims one batch at a time, never waits for the gateway.
//!
//! An offset is stored only after the claim of its record was committed (or the return was left to the scan, because
//! another transaction holds its row). Batches follow one another, so the stored offsets are contiguous per partition.
//! librdkafka commits stored offsets in the background and when partitions are revoked. Offsets only save time: a consumer
//! group that is reset to the beginning pays nothing twice.

mod ends;
mod rebalance;
mod subscription;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use shared::runtime::kafka::ClientLog;
use shared::runtime::killpoint::kill_point;
use shared::runtime::tasks::Backoff;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::claim::Claimer;
use crate::error::Error;
use crate::gateway::RefundGateway;
use crate::lag::Lag;
use crate::message::Record;
use crate::metrics::Metrics;
use crate::refund::RefundWorker;
use ends::EndReads;
use rebalance::Rebalancing;
use subscription::Subscription;

pub use subscription::client_config;

/// A batch's records are in memory together; ours take 40 bytes each, a hostile one up to the broker's limit.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// A claim that takes longer waits for the database: stop fetching, keep polling.
const SLOW_CLAIM: Duration = Duration::from_secs(1);
/// How often an intake without room checks again.
const ROOM_TICK: Duration = Duration::from_millis(5);
/// Resuming a partition fetches its records again, so a shorter time without room is waited out.
const LONG_WITHOUT_ROOM: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_secs(1);
/// A consumer that was evicted by one of the same name ends after once to twice this time: far above the session timeout
/// and a start, so that messages flow between two evictions.
const FENCED_PAUSE: Backoff = Backoff {
    base: Duration::from_secs(30),
    cap: Duration::from_secs(30),
};

/// See the module.
pub struct Intake<G> {
    subscription: Subscription,
    consumer: Arc<StreamConsumer<Rebalancing>>,
    claimer: Arc<Claimer>,
    worker: Arc<RefundWorker<G>>,
    metrics: Metrics,
    ends: EndReads,
    batch_max: usize,
    /// Received, not yet claimed.
    waiting: Vec<Arc<Record>>,
    claim: Option<RunningClaim>,
    /// Since when there is no room for the waiting records.
    no_room_since: Option<Instant>,
    paused: bool,
}

/// A claim in progress, in a task of its own.
struct RunningClaim {
    began: Instant,
    task: JoinHandle<Result<(), Error>>,
}

/// What woke the loop.
enum Event {
    Stop,
    Claimed(Result<(), Error>),
    Received(Result<Record, KafkaError>),
    /// A claim may start, and no further message is here to join it.
    NothingMore,
    Tick,
}

impl<G> fmt::Debug for Intake<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").finish_non_exhaustive()
    }
}

impl<G: RefundGateway> Intake<G> {
    /// Joins the group. Partitions arrive while [`Intake::run`] polls.
    ///
    /// # Errors
    /// A setting of the client is refused.
    pub fn join(
        config: ClientConfig,
        topic: String,
        batch_max: usize,
        claimer: Arc<Claimer>,
        worker: Arc<RefundWorker<G>>,
    ) -> Result<Self, Error> {
        let subscription = Subscription {
            config,
            topic,
            log: ClientLog::default(),
        };
        Ok(Self {
            consumer: Arc::new(subscription.join(&claimer.metrics)?),
            subscription,
            metrics: claimer.metrics.clone(),
            ends: EndReads::new(claimer.metrics.intake.lag.clone()),
            claimer,
            batch_max: batch_max.min(worker.most_for_messages()),
            worker,
            waiting: Vec::with_capacity(batch_max),
            claim: None,
            no_room_since: None,
            paused: false,
        })
    }

    /// Takes messages until `stop`, then ends the running claim and leaves the group.
    ///
    /// # Errors
    /// The client is broken for good, or a claim failed for good.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let mut ended = self.poll(&stop).await;
        self.metrics.intake.lag.clear();
        if let Err(Error::Fenced(name)) = &ended
            && wait_fenced(name, &stop).await
        {
            ended = Ok(());
        }
        if let Some(claim) = self.claim.take() {
            // The worker has its attempts all the same and gives them back, because it is stopping.
            let _ = claim.task.await;
        }
        let (consumer, ends) = (self.consumer, self.ends);
        // Leaving the group blocks, and dropping the client polls until it is done. It runs on a thread of its own, because
        // the runtime would wait for its own threads for ever if the brokers are away.
        let (done, left) = oneshot::channel();
        std::thread::spawn(move || {
            ends.finish();
            leave(consumer);
            // It fails if the drain deadline has passed.
            let _ = done.send(());
        });
        ended.and(
            left.await
                .map_err(|_| Error::TaskEnded("leaving the group")),
        )
    }

    async fn poll(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        loop {
            let event = self.next_event(stop).await;
            // Before the event is handled: a record that arrived just now belongs to a partition that we hold now.
            self.drop_revoked();
            match event {
                Event::Stop => return Ok(()),
                Event::Claimed(claimed) => match claimed {
                    Ok(()) => {}
                    // Transient only when stopping; its offsets are not stored.
                    Err(error) if error.is_transient() => {}
                    Err(error) => return Err(error),
                },
                Event::Received(Ok(record)) => {
                    self.metrics.intake.lag.received(&record);
                    self.waiting.push(Arc::new(record));
                }
                Event::Received(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(self.fatal(error));
                }
                // Brokers away, topic not there yet: the client goes on trying by itself.
                Event::Received(Err(error)) => {
                    self.metrics.work.kafka_errors.inc();
                    self.subscription.log.error(&error, "");
                }
                Event::NothingMore => self.start_claim(),
                Event::Tick => {}
            }
            if self.consumer.context().has_forgotten_brokers() {
                self.rejoin()?;
            }
            self.ends.ask_if_due(&self.consumer);
            self.no_room_since = match self.no_room_since {
                _ if self.has_room() => None,
                Some(since) => Some(since),
                None => Some(Instant::now()),
            };
            self.pause_or_resume();
        }
    }

    /// The client would stay silent for ever. Records that were received and not claimed come again.
    fn rejoin(&mut self) -> Result<(), Error> {
        tracing::error!("the Kafka client has forgotten all brokers: joining the group again");
        self.metrics.work.rejoined.inc();
        let joined = Arc::new(self.subscription.join(&self.metrics)?);
        let forgetful = std::mem::replace(&mut self.consumer, joined);
        self.waiting.clear();
        self.metrics.intake.lag.clear();
        self.ends = EndReads::new(self.metrics.intake.lag.clone());
        self.paused = false;
        self.metrics.intake.paused.set(0);
        // Dropping it waits for a response that does not come.
        std::thread::spawn(move || drop(forgetful));
        Ok(())
    }

    fn fatal(&self, error: KafkaError) -> Error {
        let name = self.subscription.config.get("group.instance.id");
        match (error.rdkafka_error_code(), name) {
            (Some(RDKafkaErrorCode::FencedInstanceId), Some(name)) => {
                Error::Fenced(name.to_owned())
            }
            _ => error.into(),
        }
    }

    async fn next_event(&mut self, stop: &CancellationToken) -> Event {
        let receives = self.paused || self.has_space();
        let may_claim = self.may_claim();
        let tick = if self.no_room_since.is_some() {
            ROOM_TICK
        } else {
            TICK
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            claimed = finished(&mut self.claim) => {
                self.claim = None;
                Event::Claimed(claimed)
            }
            received = receive(&self.consumer), if receives => Event::Received(received),
            () = std::future::ready(()), if may_claim => Event::NothingMore,
            () = tokio::time::sleep(tick) => Event::Tick,
        }
    }

    fn may_claim(&self) -> bool {
        self.claim.is_none() && !self.waiting.is_empty() && self.has_room()
    }

    /// Room for half a batch, if more records wait: smaller claims would cut a backlog into many small batches.
    fn has_room(&self) -> bool {
        let wanted = self.waiting.len().min(self.batch_max.div_ceil(2));
        self.worker.room_for_messages() >= wanted
    }

    fn has_space(&self) -> bool {
        let bytes: usize = self.waiting.iter().map(|record| record.bytes()).sum();
        self.waiting.len() < self.batch_max && bytes < BATCH_BYTES
    }

    /// Claims the received records. Those that arrive meanwhile form the next batch, so no message waits for others.
    fn start_claim(&mut self) {
        kill_point("consumer.after_poll");
        // The oldest records first, so each partition's offsets stay contiguous.
        let room = self.worker.room_for_messages();
        let rest = self.waiting.split_off(self.waiting.len().min(room));
        let records = std::mem::replace(&mut self.waiting, rest);
        let running = self.consumer.context().claim_starts();
        let (consumer, claimer) = (Arc::clone(&self.consumer), Arc::clone(&self.claimer));
        let worker = Arc::clone(&self.worker);
        let lag = self.metrics.intake.lag.clone();
        let task = tokio::spawn(async move {
            let hand_over = |attempts| worker.take(attempts);
            claimer.claim_records(&records, hand_over).await?;
            store_offsets(&consumer, &lag, &records);
            drop(running);
            Ok(())
        });
        self.claim = Some(RunningClaim {
            began: Instant::now(),
            task,
        });
    }

    /// Polling goes on while paused: it keeps us in the group. A partition keeps its pause while it is assigned to others
    /// (librdkafka issue 1849), so every new assignment is paused or resumed again.
    fn pause_or_resume(&mut self) {
        let slow = self
            .claim
            .as_ref()
            .is_some_and(|claim| claim.began.elapsed() > SLOW_CLAIM);
        let full = self
            .no_room_since
            .is_some_and(|since| since.elapsed() > LONG_WITHOUT_ROOM);
        let pause = full || slow;
        let assigned = self.consumer.context().take_assigned();
        if pause == self.paused && !assigned {
            return;
        }
        let partitions = self.consumer.assignment();
        let done = match (pause, partitions) {
            (true, Ok(partitions)) => self.consumer.pause(&partitions),
            (false, Ok(partitions)) => self.consumer.resume(&partitions),
            (_, Err(error)) => Err(error),
        };
        match done {
            Ok(()) => {
                self.paused = pause;
                self.metrics.intake.paused.set(i64::from(pause));
            }
            Err(error) => {
                tracing::warn!(%error, "could not pause or resume");
                self.consumer.context().note_assigned();
            }
        }
    }

    /// Records of a partition that was taken away belong to its new owner.
    fn drop_revoked(&mut self) {
        let revoked = self.consumer.context().take_revoked();
        if !revoked.is_empty() {
            self.waiting
                .retain(|record| !revoked.contains(&(record.topic.clone(), record.partition)));
        }
    }
}

/// Waits before the process ends: a supervisor starts it again, it joins the group, and so it evicts the other one, which
/// does the same. Open refunds and the scans go on meanwhile. Returns whether it was stopped.
async fn wait_fenced(name: &str, stop: &CancellationToken) -> bool {
    let pause = FENCED_PAUSE.base + FENCED_PAUSE.pause(0);
    tracing::error!(
        consumer.instance_id = name,
        pause.seconds = pause.as_secs(),
        "another consumer has joined the group under this CONSUMER_INSTANCE_ID: give each its own. This one takes no \
         messages any more, and ends after a pause"
    );
    let pause = tokio::time::sleep(pause);
    stop.run_until_cancelled(pause).await.is_none()
}

async fn receive(consumer: &StreamConsumer<Rebalancing>) -> Result<Record, KafkaError> {
    consumer.recv().await.map(|message| Record::copy(&message))
}

/// Waits for the running claim; for ever if there is none. Cancel-safe: the claim runs in its own task.
async fn finished(claim: &mut Option<RunningClaim>) -> Result<(), Error> {
    match claim {
        Some(claim) => (&mut claim.task)
            .await
            .unwrap_or(Err(Error::TaskEnded("a claim"))),
        None => std::future::pending().await,
    }
}

/// Stores one past the highest offset of each partition. librdkafka refuses it after a revocation, which is right: the new
/// owner decides.
fn store_offsets(consumer: &StreamConsumer<Rebalancing>, lag: &Lag, records: &[Arc<Record>]) {
    let mut next: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for record in records {
        let offset = next.entry((&record.topic, record.partition)).or_default();
        *offset = (*offset).max(record.offset + 1);
    }
    let mut list = TopicPartitionList::new();
    for (&(topic, partition), &offset) in &next {
        if let Err(error) = list.add_partition_offset(topic, partition, Offset::Offset(offset)) {
            tracing::debug!(%error, "an offset cannot be stored");
        }
    }
    match consumer.store_offsets(&list) {
        Ok(()) => next
            .into_iter()
            .for_each(|((topic, partition), offset)| lag.done(topic, partition, offset)),
        Err(error) => tracing::debug!(%error, "offsets were not stored"),
    }
}

fn leave(consumer: Arc<StreamConsumer<Rebalancing>>) {
    // That nothing is stored is no error; any other failure costs only duplicates.
    if let Err(error) = consumer.commit_consumer_state(CommitMode::Sync) {
        tracing::debug!(%error, "no offsets were committed at the end");
    }
    consumer.unsubscribe();
    drop(consumer);
}
