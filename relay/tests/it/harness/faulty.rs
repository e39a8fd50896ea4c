//! Kafka behind a wrapper that fails as a real producer does: after a failure nothing more is delivered.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use relay::pending::Pending;
use relay::publisher::{Flow, Kafka, NotEnqueued, Publish, Report, Token, TopicTrouble};
use tokio::sync::mpsc::{self, UnboundedSender};

pub(crate) struct Faulty {
    kafka: Kafka,
    plan: Plan,
    reports: Mutex<Option<UnboundedSender<Report>>>,
    broken: AtomicBool,
    /// Records given to this and earlier producers.
    pub(crate) enqueued: Arc<AtomicUsize>,
    pub(crate) producers: Arc<AtomicUsize>,
    /// How often the queue was full.
    pub(crate) overflows: Arc<AtomicUsize>,
    /// How often the flow changed.
    pub(crate) flow_changes: Arc<AtomicUsize>,
    flow: Mutex<Option<Flow>>,
    /// While this is set, the plan [`Plan::Deny`] denies.
    pub(crate) denied: Arc<AtomicBool>,
}

enum Plan {
    /// The producer breaks at every n-th record.
    BreakAtEach(usize),
    /// The broker refuses these payloads, and with them what follows in the batch.
    Refuse(Vec<u8>),
    /// The broker says that we may not write, while `denied`.
    Deny,
    /// The acknowledgement of the first record does not come.
    LoseFirstAck,
    /// The producer takes nothing the first time it is given a record.
    FailFirst,
    /// Nothing fails of itself.
    Watch,
}

impl Faulty {
    pub(crate) fn breaking_at_each(kafka: Kafka, n: usize) -> Self {
        Self::new(kafka, Plan::BreakAtEach(n))
    }

    pub(crate) fn refusing(kafka: Kafka, payload: &[u8]) -> Self {
        Self::new(kafka, Plan::Refuse(payload.to_vec()))
    }

    pub(crate) fn denying(kafka: Kafka) -> Self {
        Self::new(kafka, Plan::Deny)
    }

    pub(crate) fn losing_the_first_ack(kafka: Kafka) -> Self {
        Self::new(kafka, Plan::LoseFirstAck)
    }

    pub(crate) fn failing_first(kafka: Kafka) -> Self {
        Self::new(kafka, Plan::FailFirst)
    }

    pub(crate) fn watching(kafka: Kafka) -> Self {
        Self::new(kafka, Plan::Watch)
    }

    fn new(kafka: Kafka, plan: Plan) -> Self {
        Self {
            kafka,
            plan,
            reports: Mutex::new(None),
            broken: AtomicBool::new(false),
            enqueued: Arc::default(),
            producers: Arc::default(),
            overflows: Arc::default(),
            flow_changes: Arc::default(),
            flow: Mutex::default(),
            denied: Arc::default(),
        }
    }

    fn report(&self, report: Report) {
        let reports = self.reports.lock().expect("not poisoned");
        let reports = reports.as_ref().expect("connected");
        reports.send(report).expect("the pump listens");
    }
}

impl Publish for Faulty {
    fn connect(&mut self, reports: UnboundedSender<Report>) -> Result<(), KafkaError> {
        *self.reports.lock().expect("not poisoned") = Some(reports.clone());
        self.broken.store(false, Ordering::Relaxed);
        self.producers.fetch_add(1, Ordering::Relaxed);
        match self.plan {
            Plan::LoseFirstAck => self.kafka.connect(without_the_first_ack(reports)),
            _ => self.kafka.connect(reports),
        }
    }

    async fn destroy(&mut self) {
        self.kafka.destroy().await;
    }

    fn enqueue(
        &self,
        event: &Pending,
        epoch: i64,
        token: Token,
        flow: Flow,
    ) -> Result<(), NotEnqueued> {
        let last = self.flow.lock().expect("not poisoned").replace(flow);
        if last.is_some_and(|last| last != flow) {
            self.flow_changes.fetch_add(1, Ordering::Relaxed);
        }
        let number = self.enqueued.fetch_add(1, Ordering::Relaxed) + 1;
        if number == 1 && matches!(self.plan, Plan::FailFirst) {
            return Err(NotEnqueued::Failed(RDKafkaErrorCode::Fatal));
        }
        if self.broken.load(Ordering::Relaxed) {
            let code = match self.plan {
                Plan::BreakAtEach(_) => RDKafkaErrorCode::PurgeQueue,
                Plan::Refuse(_) => RDKafkaErrorCode::InvalidRecord,
                Plan::Deny => RDKafkaErrorCode::TopicAuthorizationFailed,
                Plan::LoseFirstAck | Plan::FailFirst | Plan::Watch => RDKafkaErrorCode::Fail,
            };
            self.report(Report::Undelivered(token, code));
            return Ok(());
        }
        let failure = match &self.plan {
            Plan::BreakAtEach(n) => number
                .is_multiple_of(*n)
                .then_some(RDKafkaErrorCode::OutOfOrderSequenceNumber),
            Plan::Refuse(payload) => {
                (event.payload == *payload).then_some(RDKafkaErrorCode::InvalidRecord)
            }
            Plan::Deny => {
                let denied = self.denied.load(Ordering::Relaxed);
                denied.then_some(RDKafkaErrorCode::TopicAuthorizationFailed)
            }
            Plan::LoseFirstAck | Plan::FailFirst | Plan::Watch => None,
        };
        match failure {
            Some(code) => {
                self.broken.store(true, Ordering::Relaxed);
                self.report(Report::Undelivered(token, code));
                Ok(())
            }
            None => {
                let outcome = self.kafka.enqueue(event, epoch, token, flow);
                if outcome == Err(NotEnqueued::QueueFull) {
                    self.overflows.fetch_add(1, Ordering::Relaxed);
                }
                outcome
            }
        }
    }

    fn topic_limit(
        &self,
        topic: String,
    ) -> impl Future<Output = Result<usize, TopicTrouble>> + Send + 'static {
        let denied = self.denied.load(Ordering::Relaxed);
        let limit = self.kafka.topic_limit(topic);
        async move {
            if denied {
                return Err(TopicTrouble::NotAuthorized);
            }
            limit.await
        }
    }
}

/// Passes reports on, but for the first acknowledgement.
fn without_the_first_ack(reports: UnboundedSender<Report>) -> UnboundedSender<Report> {
    let (pass_on, mut from_kafka) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut is_lost = false;
        while let Some(report) = from_kafka.recv().await {
            if !is_lost && matches!(report, Report::Delivered(_)) {
                is_lost = true;
            } else if reports.send(report).is_err() {
                break;
            }
        }
    });
    pass_on
}
