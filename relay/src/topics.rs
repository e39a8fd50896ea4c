//! What is known about each topic. Nothing is enqueued for a topic before its limit is known. So a missing topic, or a
//! broker that is away at the start, makes rows wait and fails no record.
//!
//! A topic in *trouble* holds back its own rows; all others flow. Its trouble ends when it takes records, or when
//! no row waits for it any more. A broker that does not respond holds back everything, but only a topic that is not in
//! trouble shows that.

mod existing;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use shared::domain::event::is_topic_name;
use shared::runtime::tasks::{Backoff, Outage};
use tokio::sync::mpsc;

use self::existing::ExistingTopics;
use crate::metrics::Metrics;
use crate::publisher::{Publish, Topic, TopicProblem};

/// A topic in trouble is asked for again within five seconds.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(5),
};
/// The same while a broker does not respond: everything waits for it.
const BACKOFF_OF_BROKER: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(1),
};
/// The same after a record was refused, although Kafka described the topic: each new try costs a producer.
const BACKOFF_AFTER_REFUSAL: Backoff = Backoff {
    base: Duration::from_secs(2),
    cap: Duration::from_secs(60),
};
/// A program that writes a new name into each row must not make the relay ask for each of them. From this number on, only
/// topics that exist are asked for. Rows of other names wait until an operator has put rows aside, or made the topic.
pub(crate) const MAX_TROUBLES: usize = 64;

#[derive(Debug)]
enum Response {
    Described(String, Result<Topic, TopicProblem>),
    Listed(Result<HashSet<String>, TopicProblem>),
}

#[derive(Debug)]
pub(crate) struct Topics {
    known: HashMap<String, Topic>,
    requested: HashSet<String>,
    troubles: HashMap<String, Trouble>,
    existing: ExistingTopics,
    /// How often in a row a topic's records were refused.
    refusals: HashMap<String, u32>,
    /// A topic is not in trouble any more, and its rows have not been read since.
    has_recovered: bool,
    respond: mpsc::UnboundedSender<Response>,
    responses: mpsc::UnboundedReceiver<Response>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Trouble {
    problem: TopicProblem,
    retry_at: Instant,
    /// A row of the topic was read since the last try.
    is_wanted: bool,
    tries: u32,
    outage: Outage,
}

/// What can be done with a row of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TopicState {
    Known(Topic),
    /// Its rows must wait; others may be sent.
    InTrouble,
    /// Nothing can be sent before Kafka has responded.
    Awaited,
}

impl Topics {
    pub(crate) fn new(metrics: Metrics) -> Self {
        let (respond, responses) = mpsc::unbounded_channel();
        Self {
            known: HashMap::new(),
            requested: HashSet::new(),
            troubles: HashMap::new(),
            existing: ExistingTopics::default(),
            refusals: HashMap::new(),
            has_recovered: false,
            respond,
            responses,
            metrics,
        }
    }

    /// Asks Kafka for a topic that is not known, unless it was asked or its retry is not due.
    pub(crate) fn state<P: Publish>(&mut self, publisher: &P, topic: &str) -> TopicState {
        if let Some(known) = self.known.get(topic) {
            return TopicState::Known(*known);
        }
        if self.is_in_trouble(topic) {
            if let Some(trouble) = self.troubles.get_mut(topic) {
                trouble.is_wanted = true;
            }
            return TopicState::InTrouble;
        }
        if !is_topic_name(topic) {
            self.note_problem(topic, TopicProblem::Illegal);
            self.show();
            return TopicState::InTrouble;
        }
        if !self.troubles.contains_key(topic) {
            self.request(publisher, topic);
        }
        TopicState::Awaited
    }

    pub(crate) fn known(&self, topic: &str) -> Option<Topic> {
        self.known.get(topic).copied()
    }

    /// A record went to the partition of this number. If there was none when the topic was described, asks again.
    pub(crate) fn note_partition<P: Publish>(&mut self, publisher: &P, topic: &str, number: usize) {
        let known = self.known.get(topic);
        if known.is_some_and(|known| number >= known.partitions) {
            self.request(publisher, topic);
        }
    }

    /// Whether rows of a topic are held back.
    pub(crate) fn is_in_trouble(&self, topic: &str) -> bool {
        match self.troubles.get(topic) {
            Some(trouble) => trouble.problem.is_of_topic(),
            None => {
                self.has_most_troubles()
                    && !self.known.contains_key(topic)
                    && !self.existing.has(topic)
            }
        }
    }

    fn has_most_troubles(&self) -> bool {
        self.troubles.len() >= MAX_TROUBLES
    }

    /// Asks again for the topics in trouble whose retry is due, and for the names of all topics when they are needed.
    /// Forgets topics of which no row waits: `is_held` is true if reads pass over rows of a topic.
    pub(crate) fn retry<P: Publish>(
        &mut self,
        publisher: &P,
        now: Instant,
        is_held: impl Fn(&str) -> bool,
    ) {
        let due = self.troubles.iter();
        let due = due.filter(|(_, trouble)| now >= trouble.retry_at);
        let due: Vec<String> = due.map(|(topic, _)| topic.clone()).collect();
        for topic in due {
            self.forget_or_ask(publisher, topic, now, &is_held);
        }
        if self.has_most_troubles() && self.existing.take_due(now) {
            let listed = publisher.list_topics();
            self.respond_with(async { Response::Listed(listed.await) });
        }
    }

    fn forget_or_ask<P: Publish>(
        &mut self,
        publisher: &P,
        topic: String,
        now: Instant,
        is_held: impl Fn(&str) -> bool,
    ) {
        // While Kafka does not respond no rows are read, so that none was read means nothing.
        let can_forget = !self.requested.contains(&topic) && !self.is_blocking();
        let Some(trouble) = self.troubles.get_mut(&topic) else {
            return;
        };
        let is_wanted = std::mem::take(&mut trouble.is_wanted);
        if can_forget && !is_wanted && !is_held(&topic) {
            // Rows of topics that were not asked for may be held: they are asked for now.
            self.has_recovered |= self.has_most_troubles();
            self.troubles.remove(&topic);
            tracing::info!(topic, "no row of a topic in trouble waits any more");
            self.show();
        } else if trouble.problem == TopicProblem::Illegal {
            trouble.retry_at = now + BACKOFF.cap;
        } else {
            self.request(publisher, &topic);
        }
    }

    fn request<P: Publish>(&mut self, publisher: &P, topic: &str) {
        if self.requested.insert(topic.to_owned()) {
            let topic = topic.to_owned();
            let described = publisher.describe_topic(topic.clone());
            self.respond_with(async { Response::Described(topic, described.await) });
        }
    }

    fn respond_with(&self, response: impl Future<Output = Response> + Send + 'static) {
        let respond = self.respond.clone();
        tokio::spawn(async move {
            // If the receiver is closed, the pump has ended.
            let _ = respond.send(response.await);
        });
    }

    /// Whether more rows could not be sent: Kafka has not responded about a topic yet, or does not respond.
    pub(crate) fn is_blocking(&self) -> bool {
        let mut troubles = self.troubles.values();
        let mut requested = self.requested.iter();
        troubles.any(|trouble| !trouble.problem.is_of_topic())
            || requested.any(|topic| !self.is_decided(topic))
    }

    /// Whether Kafka has responded about the topic before.
    fn is_decided(&self, topic: &str) -> bool {
        self.known.contains_key(topic) || self.troubles.contains_key(topic)
    }

    /// Requests all limits again: a topic may have been changed or created again.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    /// An operator has put rows aside or back: which topics are in trouble shows when their rows are read.
    pub(crate) fn forget_troubles(&mut self) {
        self.troubles.clear();
        self.refusals.clear();
        // Shards that this operator did not touch may hold rows of these topics: all are read again.
        self.has_recovered = true;
        self.show();
    }

    /// Whether a topic has recovered since the last call.
    pub(crate) fn take_recovered(&mut self) -> bool {
        std::mem::take(&mut self.has_recovered)
    }

    /// Waits for the next response, good or bad. Cancel-safe.
    pub(crate) async fn updated(&mut self) {
        match self.responses.recv().await {
            Some(Response::Described(topic, described)) => self.note_described(topic, described),
            Some(Response::Listed(listed)) => self.has_recovered |= self.existing.take(listed),
            None => {}
        }
    }

    fn note_described(&mut self, topic: String, described: Result<Topic, TopicProblem>) {
        self.requested.remove(&topic);
        match described {
            Ok(known) => {
                if let Some(mut trouble) = self.troubles.remove(&topic) {
                    trouble.outage.ended();
                    self.has_recovered = true;
                }
                self.known.insert(topic, known);
            }
            // The topic takes records: it is no news that no broker answers, as with a topic in trouble.
            Err(problem) if !problem.is_of_topic() && self.known.contains_key(&topic) => {}
            Err(problem) => self.note_problem(&topic, problem),
        }
        self.show();
    }

    fn note_problem(&mut self, topic: &str, problem: TopicProblem) {
        self.known.remove(topic);
        let trouble = self.troubles.entry(topic.to_owned()).or_insert_with(|| {
            let what = format!("sending rows of topic {topic:?}");
            Trouble {
                problem,
                retry_at: Instant::now(),
                is_wanted: true,
                tries: 0,
                outage: Outage::new(what),
            }
        });
        // No answer about a topic in trouble is no news: topics that are not in trouble show whether a broker responds.
        if problem.is_of_topic() {
            trouble.problem = problem;
        }
        trouble.outage.failed(&trouble.problem);
        let backoff = match trouble.problem.is_of_topic() {
            true => BACKOFF,
            false => BACKOFF_OF_BROKER,
        };
        trouble.retry_at = Instant::now() + backoff.pause(trouble.tries);
        trouble.tries += 1;
    }

    /// A record of the topic was refused because of its topic, although Kafka described the topic before.
    pub(crate) fn note_refusal(&mut self, topic: &str, problem: TopicProblem) {
        if self.troubles.contains_key(topic) {
            return;
        }
        self.note_problem(topic, problem);
        let refusals = self.refusals.entry(topic.to_owned()).or_default();
        let pause = BACKOFF_AFTER_REFUSAL.pause(*refusals);
        *refusals += 1;
        if let Some(trouble) = self.troubles.get_mut(topic) {
            trouble.retry_at = Instant::now() + pause;
        }
        self.show();
    }

    pub(crate) fn note_delivered(&mut self, topic: &str) {
        if !self.refusals.is_empty() {
            self.refusals.remove(topic);
        }
    }

    /// The topics in trouble, each with the code of its problem.
    pub(crate) fn troubled(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let of_topic = self.troubles.iter();
        let of_topic = of_topic.filter(|(_, trouble)| trouble.problem.is_of_topic());
        of_topic.map(|(topic, trouble)| (topic.as_str(), trouble.problem.code()))
    }

    fn show(&self) {
        let problems = || self.troubles.values().map(|trouble| trouble.problem.code());
        for reason in TopicProblem::CODES {
            let blocked = self.metrics.blocked.with_label_values(&[reason]);
            blocked.set(i64::from(problems().any(|code| code == reason)));
        }
    }
}
