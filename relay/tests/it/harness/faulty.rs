//! Kafka behind a wrapper that fails as a real producer does: after a failure nothing more is delivered.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use relay::pending::Pending;
use relay::publisher::{Kafka, NotEnqueued, Publish, Report, Token, TopicTrouble};
use tokio::sync::mpsc::UnboundedSender;

pub(crate) struct Faulty {
    kafka: Kafka,
    plan: Plan,
    reports: Mutex<Option<UnboundedSender<Report>>>,
    broken: AtomicBool,
    /// Records given to this and earlier producers.
    pub(crate) enqueued: Arc<AtomicUsize>,
    pub(crate) producers: Arc<AtomicUsize>,
}

enum Plan {
    /// The producer breaks at every n-th record.
    BreakAtEach(usize),
    /// The broker refuses these payloads, and with them what follows in the batch.
    Refuse(Vec<u8>),
}

impl Faulty {
    pub(crate) fn breaking_at_each(kafka: Kafka, n: usize) -> Self {
        Self::new(kafka, Plan::BreakAtEach(n))
    }

    pub(crate) fn refusing(kafka: Kafka, payload: &[u8]) -> Self {
        Self::new(kafka, Plan::Refuse(payload.to_vec()))
    }

    fn new(kafka: Kafka, plan: Plan) -> Self {
        Self {
            kafka,
            plan,
            reports: Mutex::new(None),
            broken: AtomicBool::new(false),
            enqueued: Arc::default(),
            producers: Arc::default(),
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
        self.kafka.connect(reports)
    }

    async fn destroy(&mut self) {
        self.kafka.destroy().await;
    }

    fn enqueue(&self, event: &Pending, epoch: i64, token: Token) -> Result<(), NotEnqueued> {
        let number = self.enqueued.fetch_add(1, Ordering::Relaxed) + 1;
        if self.broken.load(Ordering::Relaxed) {
            let code = match self.plan {
                Plan::BreakAtEach(_) => RDKafkaErrorCode::PurgeQueue,
                Plan::Refuse(_) => RDKafkaErrorCode::InvalidRecord,
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
        };
        match failure {
            Some(code) => {
                self.broken.store(true, Ordering::Relaxed);
                self.report(Report::Undelivered(token, code));
                Ok(())
            }
            None => self.kafka.enqueue(event, epoch, token),
        }
    }

    fn topic_limit(
        &self,
        topic: String,
    ) -> impl Future<Output = Result<usize, TopicTrouble>> + Send + 'static {
        self.kafka.topic_limit(topic)
    }
}
