//! How large a record each topic takes. Nothing is enqueued for a topic before this is known, so a topic that is
//! missing, or a broker that is away at the start, holds everything back instead of failing records.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use shared::retry::full_jitter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::publisher::{Publish, TopicTrouble};

/// A missing topic or broker is asked for again within this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type Answer = Result<usize, TopicTrouble>;

#[derive(Debug)]
pub(crate) struct TopicLimits {
    known: HashMap<String, usize>,
    asking: HashSet<String>,
    answer_to: mpsc::UnboundedSender<(String, Answer)>,
    answers: mpsc::UnboundedReceiver<(String, Answer)>,
    metrics: Metrics,
    quit: CancellationToken,
}

impl TopicLimits {
    pub(crate) fn new(metrics: Metrics, quit: CancellationToken) -> Self {
        let (answer_to, answers) = mpsc::unbounded_channel();
        Self {
            known: HashMap::new(),
            asking: HashSet::new(),
            answer_to,
            answers,
            metrics,
            quit,
        }
    }

    /// The limit if it is known; otherwise begins to ask for it.
    pub(crate) fn limit<P: Publish>(&mut self, publisher: &P, topic: &str) -> Option<usize> {
        let known = self.known.get(topic).copied();
        if known.is_none() && self.asking.insert(topic.to_owned()) {
            self.ask(topic.to_owned(), publisher.topic_limit(topic.to_owned()));
        }
        known
    }

    /// A topic's limit is not known yet: reading on would be for nothing.
    pub(crate) fn is_asking(&self) -> bool {
        !self.asking.is_empty()
    }

    /// A new producer asks anew: a topic may have been changed or made again.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    /// Waits until an answer came in, good or bad. Cancel-safe.
    pub(crate) async fn answered(&mut self) {
        let Some((topic, answer)) = self.answers.recv().await else {
            return;
        };
        self.asking.remove(&topic);
        if let Ok(limit) = answer {
            for reason in TopicTrouble::CODES {
                self.metrics.blocked.with_label_values(&[reason]).set(0);
            }
            self.known.insert(topic, limit);
        }
    }

    /// One question in a task of its own; after a bad answer the task waits, so that it is not asked again at once.
    fn ask<F>(&self, topic: String, question: F)
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let (answer_to, metrics, quit) = (
            self.answer_to.clone(),
            self.metrics.clone(),
            self.quit.clone(),
        );
        tokio::spawn(async move {
            let answer = question.await;
            if let Err(trouble) = answer {
                metrics.blocked.with_label_values(&[trouble.code()]).set(1);
                tracing::error!(
                    topic,
                    reason = trouble.code(),
                    "nothing can be sent: {trouble}"
                );
                let pause = tokio::time::sleep(full_jitter(0, RETRY_AFTER, RETRY_AFTER));
                quit.run_until_cancelled(pause).await;
            }
            // The pump is gone: nobody needs to know.
            let _ = answer_to.send((topic, answer));
        });
    }
}
