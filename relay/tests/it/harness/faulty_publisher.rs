//! A publisher to Kafka that fails like a real producer: after a failure it delivers nothing more.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use relay::pending::Pending;
use relay::publisher::kafka::KafkaPublisher;
use relay::publisher::{
    DeliveryReport, EnqueueError, Publish, RecordId, SendMode, Topic, TopicProblem,
};
use shared::domain::event::Envelope;
use tokio::sync::mpsc::{self, UnboundedSender};

pub(crate) struct FaultyPublisher {
    kafka: KafkaPublisher,
    fault: Fault,
    reports: Mutex<Option<UnboundedSender<DeliveryReport>>>,
    is_broken: AtomicBool,
    /// Records given to this and to earlier producers.
    pub(crate) enqueued: Arc<AtomicUsize>,
    pub(crate) producers: Arc<AtomicUsize>,
    /// How often the queue was full.
    pub(crate) overflows: Arc<AtomicUsize>,
    /// How often the send mode changed.
    pub(crate) mode_changes: Arc<AtomicUsize>,
    mode: Mutex<Option<SendMode>>,
    /// No record of these topics is sent.
    pub(crate) stalled_topics: Arc<Mutex<HashSet<String>>>,
    withheld: Mutex<Vec<(Pending, i64, RecordId, SendMode)>>,
    /// Switches [`Fault::Deny`] or [`Fault::Silence`] on.
    pub(crate) denied: Arc<AtomicBool>,
    /// How often a topic was asked for.
    pub(crate) described: Arc<AtomicUsize>,
    /// How often no broker answered about the topic of [`Fault::Silence`].
    pub(crate) unanswered: Arc<AtomicUsize>,
}

enum Fault {
    /// The producer breaks at every n-th record.
    BreakAtEach(usize),
    /// The broker refuses this payload, and with it the records after it in the batch.
    Refuse(Vec<u8>),
    /// The broker denies the right to write, while `denied`.
    Deny,
    /// No broker answers about this topic, while `denied`.
    Silence(String),
    /// The acknowledgement of the first record is lost.
    LoseFirstAck,
    /// The producer fails to enqueue the first record.
    FailFirst,
    /// The first description of a topic is from a time when it had one partition.
    Outdated,
    None,
}

impl FaultyPublisher {
    pub(crate) fn breaking_at_each(kafka: KafkaPublisher, n: usize) -> Self {
        Self::new(kafka, Fault::BreakAtEach(n))
    }

    pub(crate) fn refusing(kafka: KafkaPublisher, payload: &[u8]) -> Self {
        Self::new(kafka, Fault::Refuse(payload.to_vec()))
    }

    pub(crate) fn denying(kafka: KafkaPublisher) -> Self {
        Self::new(kafka, Fault::Deny)
    }

    pub(crate) fn silent_about(kafka: KafkaPublisher, topic: &str) -> Self {
        Self::new(kafka, Fault::Silence(topic.to_owned()))
    }

    pub(crate) fn losing_the_first_ack(kafka: KafkaPublisher) -> Self {
        Self::new(kafka, Fault::LoseFirstAck)
    }

    pub(crate) fn failing_first(kafka: KafkaPublisher) -> Self {
        Self::new(kafka, Fault::FailFirst)
    }

    pub(crate) fn outdated(kafka: KafkaPublisher) -> Self {
        Self::new(kafka, Fault::Outdated)
    }

    /// Only counts.
    pub(crate) fn counting(kafka: KafkaPublisher) -> Self {
        Self::new(kafka, Fault::None)
    }

    fn new(kafka: KafkaPublisher, fault: Fault) -> Self {
        Self {
            kafka,
            fault,
            reports: Mutex::new(None),
            is_broken: AtomicBool::new(false),
            enqueued: Arc::default(),
            producers: Arc::default(),
            overflows: Arc::default(),
            mode_changes: Arc::default(),
            mode: Mutex::default(),
            stalled_topics: Arc::default(),
            withheld: Mutex::default(),
            denied: Arc::default(),
            described: Arc::default(),
            unanswered: Arc::default(),
        }
    }

    fn report(&self, report: DeliveryReport) {
        let reports = self.reports.lock().expect("not poisoned");
        let reports = reports.as_ref().expect("connected");
        reports.send(report).expect("the pump receives reports");
    }

    fn count_mode_change(&self, mode: SendMode) {
        let last = self.mode.lock().expect("not poisoned").replace(mode);
        if last.is_some_and(|last| last != mode) {
            self.mode_changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps a record of a stalled topic. Once no topic is stalled, the records kept before go first.
    fn withholds(
        &self,
        event: &Pending,
        envelope: &Envelope<'_>,
        id: RecordId,
        mode: SendMode,
    ) -> bool {
        let stalled = self.stalled_topics.lock().expect("not poisoned");
        let mut withheld = self.withheld.lock().expect("not poisoned");
        if stalled.contains(&event.topic) {
            withheld.push((event.clone(), envelope.epoch, id, mode));
            return true;
        }
        if stalled.is_empty() {
            for (event, epoch, id, mode) in withheld.drain(..) {
                let sent = self
                    .kafka
                    .enqueue(&event, &event.envelope(epoch, None), id, mode);
                sent.expect("room in the queue");
            }
        }
        false
    }

    /// Why record `number` of this publisher breaks the producer.
    fn failure(&self, number: usize, event: &Pending) -> Option<RDKafkaErrorCode> {
        match &self.fault {
            Fault::BreakAtEach(n) => number
                .is_multiple_of(*n)
                .then_some(RDKafkaErrorCode::OutOfOrderSequenceNumber),
            Fault::Refuse(payload) => {
                (event.payload == *payload).then_some(RDKafkaErrorCode::InvalidRecord)
            }
            Fault::Deny => {
                let denied = self.denied.load(Ordering::Relaxed);
                denied.then_some(RDKafkaErrorCode::TopicAuthorizationFailed)
            }
            Fault::Silence(_)
            | Fault::LoseFirstAck
            | Fault::FailFirst
            | Fault::Outdated
            | Fault::None => None,
        }
    }

    /// What a broken producer reports about the records after the failure.
    fn code_when_broken(&self) -> RDKafkaErrorCode {
        match self.fault {
            Fault::BreakAtEach(_) => RDKafkaErrorCode::PurgeQueue,
            Fault::Refuse(_) => RDKafkaErrorCode::InvalidRecord,
            Fault::Deny => RDKafkaErrorCode::TopicAuthorizationFailed,
            Fault::Silence(_)
            | Fault::LoseFirstAck
            | Fault::FailFirst
            | Fault::Outdated
            | Fault::None => RDKafkaErrorCode::Fail,
        }
    }
}

impl Publish for FaultyPublisher {
    fn connect(&mut self, reports: UnboundedSender<DeliveryReport>) -> Result<(), KafkaError> {
        *self.reports.lock().expect("not poisoned") = Some(reports.clone());
        self.is_broken.store(false, Ordering::Relaxed);
        self.producers.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::LoseFirstAck => self.kafka.connect(without_the_first_ack(reports)),
            _ => self.kafka.connect(reports),
        }
    }

    async fn destroy(&mut self) {
        self.withheld.lock().expect("not poisoned").clear();
        self.kafka.destroy().await;
    }

    fn enqueue(
        &self,
        event: &Pending,
        envelope: &Envelope<'_>,
        id: RecordId,
        mode: SendMode,
    ) -> Result<(), EnqueueError> {
        self.count_mode_change(mode);
        let number = self.enqueued.fetch_add(1, Ordering::Relaxed) + 1;
        if number == 1 && matches!(self.fault, Fault::FailFirst) {
            return Err(EnqueueError::Failed(RDKafkaErrorCode::Fatal));
        }
        if self.is_broken.load(Ordering::Relaxed) {
            self.report(DeliveryReport::Undelivered(id, self.code_when_broken()));
            return Ok(());
        }
        if let Some(code) = self.failure(number, event) {
            self.is_broken.store(true, Ordering::Relaxed);
            self.report(DeliveryReport::Undelivered(id, code));
            return Ok(());
        }
        if self.withholds(event, envelope, id, mode) {
            return Ok(());
        }
        let outcome = self.kafka.enqueue(event, envelope, id, mode);
        if outcome == Err(EnqueueError::QueueFull) {
            self.overflows.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    fn describe_topic(
        &self,
        topic: String,
    ) -> impl Future<Output = Result<Topic, TopicProblem>> + Send + 'static {
        let is_first = self.described.fetch_add(1, Ordering::Relaxed) == 0;
        let is_outdated = is_first && matches!(self.fault, Fault::Outdated);
        let is_on = self.denied.load(Ordering::Relaxed);
        let problem = match &self.fault {
            Fault::Deny if is_on => Some(TopicProblem::NotAuthorized),
            Fault::Silence(about) if is_on && *about == topic => {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                let code = RDKafkaErrorCode::OperationTimedOut;
                Some(TopicProblem::BrokerAway(code))
            }
            _ => None,
        };
        let known = self.kafka.describe_topic(topic);
        async move {
            match problem {
                Some(problem) => Err(problem),
                None if is_outdated => known.await.map(|known| Topic {
                    partitions: 1,
                    ..known
                }),
                None => known.await,
            }
        }
    }

    fn list_topics(
        &self,
    ) -> impl Future<Output = Result<HashSet<String>, TopicProblem>> + Send + 'static {
        self.kafka.list_topics()
    }
}

/// Forwards all reports except the first acknowledgement.
fn without_the_first_ack(
    reports: UnboundedSender<DeliveryReport>,
) -> UnboundedSender<DeliveryReport> {
    let (forward, mut from_kafka) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut is_lost = false;
        while let Some(report) = from_kafka.recv().await {
            if !is_lost && matches!(report, DeliveryReport::Delivered(..)) {
                is_lost = true;
            } else if reports.send(report).is_err() {
                break;
            }
        }
    });
    forward
}
