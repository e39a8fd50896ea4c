//! How records reach Kafka: the producer, its send mode, and what its failures say about single records.
//!
//! A broker refuses a whole batch because of one record. So after a refusal each record of the batch is *isolated*: sent
//! again with nothing else in flight, but for the records of stalled partitions. A batch belongs to one partition, so a
//! record that is refused alone in its partition is the cause and is parked.

mod troubles;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use shared::domain::ids::{EventId, Shard};
use shared::runtime::tasks::{Backoff, Outage};
use shared::runtime::trace::BatchSpan;
use tokio::sync::mpsc;

use self::troubles::Room;
use crate::error::RestartCause;
use crate::in_flight::SentRecord;
use crate::metrics::Metrics;
use crate::owned_shards::OwnedShards;
use crate::partitions::Partitions;
use crate::pending::{Pending, RowKey};
use crate::publisher::{
    DeliveryReport, EnqueueError, Publish, RecordId, SendMode, TopicProblem, is_record_error,
};
use crate::spans::SendSpan;
use crate::topics::{TopicState, Topics};

/// The maximum number of reports that are handled at once.
const MAX_REPORTS: usize = 1_024;
/// How long a backlog waits for the records in flight before it is sent in the current mode.
const MODE_CHANGE_WAIT: Duration = Duration::from_millis(50);
/// Without its payload and key a record is smaller than this: see the columns of `outbox`.
const ENVELOPE_ROOM: usize = 2 * 1024;
/// An isolated record that was not read again within this time has left the outbox.
const MAX_ISOLATION: Duration = Duration::from_secs(60);
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(50),
    cap: Duration::from_secs(5),
};

#[derive(Debug)]
pub(crate) struct Delivery<P> {
    publisher: P,
    reports: mpsc::UnboundedReceiver<DeliveryReport>,
    topics: Topics,
    partitions: Partitions,
    /// A topic or a partition takes records again, and its rows have not been read since.
    has_recovered: bool,
    /// The mode of the records in flight, and the mode that fits the rows of the last read.
    mode: SendMode,
    fitting_mode: SendMode,
    change_mode_by: Instant,
    /// Records to send in isolation, each with the time of its refusal.
    isolated: HashMap<EventId, Instant>,
    /// Records that the failed producer reported as refused.
    refused: Vec<Refused>,
    /// No broker can be reached; the next delivery ends that.
    has_no_broker: bool,
    failures_in_a_row: u32,
    restarts: Outage,
    stalled: Outage,
    metrics: Metrics,
}

#[derive(Debug)]
struct Refused {
    key: RowKey,
    reason: String,
    /// No other record of its partition was in flight.
    is_alone: bool,
}

/// The result of an attempt to enqueue a row.
pub(crate) enum Enqueued {
    Done,
    /// Nothing else may be enqueued until its delivery is known.
    InIsolation,
    QueueFull,
    MustWait,
    /// Its topic or its partition takes no records now; others do.
    Held,
    /// The record exceeds this limit of its topic.
    TooLarge(usize),
}

impl<P: Publish> Delivery<P> {
    /// Has no producer until [`Self::connect`].
    pub(crate) fn new(publisher: P, metrics: Metrics) -> Self {
        Self {
            publisher,
            reports: mpsc::unbounded_channel().1,
            topics: Topics::new(metrics.clone()),
            partitions: Partitions::default(),
            has_recovered: false,
            mode: SendMode::Immediate,
            fitting_mode: SendMode::Immediate,
            change_mode_by: Instant::now(),
            isolated: HashMap::new(),
            refused: Vec::new(),
            has_no_broker: false,
            failures_in_a_row: 0,
            restarts: Outage::new("the producer"),
            stalled: Outage::new("sending to some partitions"),
            metrics,
        }
    }

    pub(crate) fn connect(&mut self) -> Result<(), KafkaError> {
        let (report, reports) = mpsc::unbounded_channel();
        self.publisher.connect(report)?;
        self.reports = reports;
        // Not before: the last reports of the producer before were about them.
        self.partitions.clear();
        Ok(())
    }

    /// Destroys the producer with its queue. Returns its last reports.
    pub(crate) async fn destroy(&mut self) -> Vec<DeliveryReport> {
        self.publisher.destroy().await;
        self.waiting_reports()
    }

    /// The reports that have arrived.
    pub(crate) fn waiting_reports(&mut self) -> Vec<DeliveryReport> {
        std::iter::from_fn(|| self.reports.try_recv().ok()).collect()
    }

    /// Waits for reports, or for the limit of a topic; in the latter case there are no reports. `None`: the producer has
    /// ended. Cancel-safe.
    pub(crate) async fn reports(&mut self) -> Option<Vec<DeliveryReport>> {
        let mut reports = Vec::new();
        tokio::select! {
            count = self.reports.recv_many(&mut reports, MAX_REPORTS) => {
                (count > 0).then_some(reports)
            }
            () = self.topics.updated() => Some(Vec::new()),
        }
    }

    /// Requests the limits of all topics again.
    pub(crate) fn forget_topics(&mut self) {
        self.topics.forget();
    }

    /// Whether more rows could be sent now.
    pub(crate) fn has_room(&self, shards: &OwnedShards) -> bool {
        !self.topics.is_blocking()
            && !self.is_crowded(shards)
            && (self.isolated.is_empty() || !self.has_moving_records(shards))
    }

    /// Whether the rows of a read may be taken now. Order holds within one mode, so the mode changes only while nothing
    /// is in flight. A backlog waits for that only briefly: one stalled partition must not stop the others.
    pub(crate) fn may_take_rows(&self, shards: &OwnedShards) -> bool {
        self.mode == self.fitting_mode
            || shards.in_flight() == 0
            || Instant::now() >= self.change_mode_by
    }

    /// Chooses the mode for the rows of a read. A backlog ends only when nothing is left in flight, so that a steady high
    /// rate does not switch between the modes.
    pub(crate) fn choose_mode(&mut self, is_full: bool, is_partial: bool, shards: &OwnedShards) {
        let is_idle = shards.in_flight() == 0;
        if is_full {
            self.fitting_mode = SendMode::Batched;
        } else if is_idle && !is_partial {
            self.fitting_mode = SendMode::Immediate;
        }
        if is_idle {
            self.mode = self.fitting_mode;
        }
        self.change_mode_by = Instant::now() + MODE_CHANGE_WAIT;
    }

    /// Enqueues a row of a shard that is owned.
    pub(crate) fn enqueue(
        &mut self,
        row: &Pending,
        batch: &BatchSpan,
        shards: &mut OwnedShards,
    ) -> Result<Enqueued, RestartCause> {
        let topic = match self.topics.state(&self.publisher, &row.topic) {
            TopicState::Known(topic) => topic,
            TopicState::InTrouble => return Ok(Enqueued::Held),
            TopicState::Awaited => return Ok(Enqueued::MustWait),
        };
        let key = &row.msg_key;
        let partition = self.partitions.of(&row.topic, key, topic.partitions);
        match self.room_of(partition, shards.unsettled()) {
            Room::Some => {}
            Room::AfterAnAnswer => return Ok(Enqueued::MustWait),
            Room::None => return Ok(Enqueued::Held),
        }
        let limit = topic.limit;
        if row.payload.len() + ENVELOPE_ROOM > limit && row.record_bytes() > limit {
            return Ok(Enqueued::TooLarge(limit));
        }
        let is_isolated = self.isolated.contains_key(&row.key.event_id);
        if is_isolated && self.has_moving_records(shards) {
            return Ok(Enqueued::MustWait);
        }
        let state = shards
            .get_mut(row.key.shard)
            .expect("the caller looked it up");
        let id = RecordId::new(row.key.shard, state.in_flight.next_number());
        let waited = state.in_flight.waited(row.key.event_id);
        let span = SendSpan::begin(row, self.partitions.number(partition), batch, waited);
        let envelope = row.envelope(state.lease.epoch, span.context());
        match self.publisher.enqueue(row, &envelope, id, self.mode) {
            Ok(()) => {
                span.enqueued(row);
                state.note_sent(row, partition, span);
                self.partitions.note_sent(partition, Instant::now());
            }
            Err(error) => {
                span.forget();
                return self.not_enqueued(&row.topic, error, limit);
            }
        }
        Ok(if is_isolated {
            Enqueued::InIsolation
        } else {
            Enqueued::Done
        })
    }

    fn not_enqueued(
        &mut self,
        topic: &str,
        error: EnqueueError,
        limit: usize,
    ) -> Result<Enqueued, RestartCause> {
        match error {
            EnqueueError::QueueFull => Ok(Enqueued::QueueFull),
            EnqueueError::TooLarge => Ok(Enqueued::TooLarge(limit)),
            EnqueueError::Failed(code) => match TopicProblem::of_refusal(code) {
                Some(problem) => {
                    self.topics.note_refusal(topic, problem);
                    Ok(Enqueued::Held)
                }
                None => Err(RestartCause::Undelivered(code)),
            },
        }
    }

    /// Kafka has a record: the outage, if there was one, is over.
    pub(crate) fn note_delivered(&mut self, record: SentRecord, partition: usize) {
        self.isolated.remove(&record.key.event_id);
        let topic = self.partitions.topic(record.partition);
        self.topics.note_delivered(topic);
        self.topics
            .note_partition(&self.publisher, topic, partition);
        let now = Instant::now();
        self.has_recovered |= self.partitions.note_acknowledged(record.partition, now);
        self.has_no_broker = false;
        self.failures_in_a_row = 0;
        self.restarts.ended();
    }

    pub(crate) fn note_undelivered(&mut self, record: SentRecord, code: RDKafkaErrorCode) {
        if is_record_error(code) {
            let reason = format!("refused by Kafka: {code:?}");
            self.refused.push(Refused {
                key: record.key,
                reason,
                is_alone: self.partitions.has_one_record(record.partition),
            });
        } else if let Some(problem) = TopicProblem::of_refusal(code) {
            let topic = self.partitions.topic(record.partition);
            self.topics.note_refusal(topic, problem);
        }
    }

    /// The producer is replaced.
    pub(crate) fn note_restart(&mut self, cause: &RestartCause) {
        let code = cause.code();
        self.metrics.restarts.with_label_values(&[code]).inc();
        self.restarts.failed(cause);
    }

    pub(crate) fn note_brokers_down(&mut self, shards: &OwnedShards) {
        self.has_no_broker |= shards.in_flight() > 0;
    }

    /// Isolates the refused records. If there is only one, and it was alone in its partition, returns it instead: it is the
    /// cause.
    pub(crate) fn isolate_refused(&mut self) -> Option<(RowKey, String)> {
        let mut refused = std::mem::take(&mut self.refused);
        if refused.len() == 1
            && let Some(cause) = refused.pop_if(|only| only.is_alone)
        {
            self.isolated.remove(&cause.key.event_id);
            return Some((cause.key, cause.reason));
        }
        let now = Instant::now();
        let isolated = refused.iter().map(|refused| (refused.key.event_id, now));
        self.isolated.extend(isolated);
        None
    }

    pub(crate) fn end_isolation(&mut self, event_id: EventId) {
        self.isolated.remove(&event_id);
    }

    /// Forgets isolated records that have left the outbox.
    pub(crate) fn expire_isolation(&mut self, now: Instant) {
        self.isolated
            .retain(|_, since| now.duration_since(*since) < MAX_ISOLATION);
    }

    /// Moves shards with isolated records to the front: new rows of other shards must not delay them for ever.
    pub(crate) fn put_isolated_first(&self, rows: &mut [Pending]) {
        if self.isolated.is_empty() {
            return;
        }
        let is_isolated = |row: &&Pending| self.isolated.contains_key(&row.key.event_id);
        let isolated = rows.iter().filter(is_isolated);
        let shards: Vec<Shard> = isolated.map(|row| row.key.shard).collect();
        rows.sort_by_key(|row| !shards.contains(&row.key.shard));
    }

    /// The pause before the next producer.
    pub(crate) fn next_backoff(&mut self) -> Duration {
        let pause = BACKOFF.pause(self.failures_in_a_row);
        self.failures_in_a_row += 1;
        pause
    }
}
