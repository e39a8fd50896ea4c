//! How large a record each topic takes. Nothing is enqueued for a topic before this is known, so a topic that is
//! missing, or a broker that is away at the start, holds everything back instead of failing records.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use shared::runtime::retry::full_jitter;
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::publisher::{Publish, TopicTrouble};

/// A missing topic or broker is asked for again within this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type Answer = Result<usize, TopicTrouble>;

#[derive(Debug)]
pub(crate) struct TopicLimits {
    known: HashMap<String, usize>,
    asking: HashSet<String>,
    /// Topics that cannot be written to, and when to ask again.
    troubled: HashMap<String, (TopicTrouble, Instant)>,
    answer_to: mpsc::UnboundedSender<(String, Answer)>,
    answers: mpsc::UnboundedReceiver<(String, Answer)>,
    metrics: Metrics,
}

impl TopicLimits {
    pub(crate) fn new(metrics: Metrics) -> Self {
        let (answer_to, answers) = mpsc::unbounded_channel();
        Self {
            known: HashMap::new(),
            asking: HashSet::new(),
            troubled: HashMap::new(),
            answer_to,
            answers,
            metrics,
        }
    }

    /// The limit if it is known; otherwise begins to ask for it, if it is time to.
    pub(crate) fn limit<P: Publish>(&mut self, publisher: &P, topic: &str) -> Option<usize> {
        let known = self.known.get(topic).copied();
        if known.is_none() && !self.is_waiting(topic) && self.asking.insert(topic.to_owned()) {
            let (answer_to, topic) = (self.answer_to.clone(), topic.to_owned());
            let question = publisher.topic_limit(topic.clone());
            tokio::spawn(async move {
                // The pump is gone: nobody needs to know.
                let _ = answer_to.send((topic, question.await));
            });
        }
        known
    }

    /// A topic's limit is not known yet: reading on would be for nothing.
    pub(crate) fn holds_back(&self) -> bool {
        !self.asking.is_empty() || self.troubled.keys().any(|topic| self.is_waiting(topic))
    }

    fn is_waiting(&self, topic: &str) -> bool {
        let troubled = self.troubled.get(topic);
        troubled.is_some_and(|(_, again)| Instant::now() < *again)
    }

    /// New producers ask anew: a topic may have been changed or made again.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    /// Waits until an answer came in, good or bad. Cancel-safe.
    pub(crate) async fn answered(&mut self) {
        let Some((topic, answer)) = self.answers.recv().await else {
            return;
        };
        self.asking.remove(&topic);
        match answer {
            Ok(limit) => {
                self.troubled.remove(&topic);
                self.known.insert(topic, limit);
            }
            Err(trouble) => {
                tracing::error!(
                    topic,
                    reason = trouble.code(),
                    "nothing can be sent: {trouble}"
                );
                let again = Instant::now() + full_jitter(0, RETRY_AFTER, RETRY_AFTER);
                self.troubled.insert(topic, (trouble, again));
            }
        }
        for reason in TopicTrouble::CODES {
            let is_so = self.troubled.values().any(|(it, _)| it.code() == reason);
            let blocked = self.metrics.blocked.with_label_values(&[reason]);
            blocked.set(i64::from(is_so));
        }
    }
}
