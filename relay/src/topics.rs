//! The size limit of each topic. Nothing is enqueued for a topic before its limit is known. So a missing topic, or a
//! broker that is away at the start, makes rows wait and fails no record.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use shared::runtime::tasks::Backoff;
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::publisher::{Publish, TopicProblem};

/// The limit of a topic with a problem is requested again within a second.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(1),
};

type Response = (String, Result<usize, TopicProblem>);

#[derive(Debug)]
pub(crate) struct TopicLimits {
    known: HashMap<String, usize>,
    requested: HashSet<String>,
    /// Topics that cannot be written to, and when to request their limit again.
    problems: HashMap<String, (TopicProblem, Instant)>,
    respond: mpsc::UnboundedSender<Response>,
    responses: mpsc::UnboundedReceiver<Response>,
    metrics: Metrics,
}

impl TopicLimits {
    pub(crate) fn new(metrics: Metrics) -> Self {
        let (respond, responses) = mpsc::unbounded_channel();
        Self {
            known: HashMap::new(),
            requested: HashSet::new(),
            problems: HashMap::new(),
            respond,
            responses,
            metrics,
        }
    }

    /// Returns the limit if it is known. Otherwise requests it, unless a request is in progress or waits for its retry.
    pub(crate) fn limit<P: Publish>(&mut self, publisher: &P, topic: &str) -> Option<usize> {
        let known = self.known.get(topic).copied();
        if known.is_none()
            && !self.waits_for_retry(topic)
            && self.requested.insert(topic.to_owned())
        {
            let (respond, topic) = (self.respond.clone(), topic.to_owned());
            let request = publisher.topic_limit(topic.clone());
            tokio::spawn(async move {
                // If the receiver is closed, the pump has ended.
                let _ = respond.send((topic, request.await));
            });
        }
        known
    }

    /// Whether the limit of some topic is unknown, so that more rows could not be sent.
    pub(crate) fn is_blocking(&self) -> bool {
        let mut problems = self.problems.keys();
        !self.requested.is_empty() || problems.any(|topic| self.waits_for_retry(topic))
    }

    fn waits_for_retry(&self, topic: &str) -> bool {
        let problem = self.problems.get(topic);
        problem.is_some_and(|(_, retry_at)| Instant::now() < *retry_at)
    }

    /// Requests all limits again: a topic may have been changed or created again.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    /// Waits for the next response, good or bad. Cancel-safe.
    pub(crate) async fn updated(&mut self) {
        let Some((topic, limit)) = self.responses.recv().await else {
            return;
        };
        self.requested.remove(&topic);
        match limit {
            Ok(limit) => {
                self.problems.remove(&topic);
                self.known.insert(topic, limit);
            }
            Err(problem) => {
                tracing::error!(
                    topic,
                    reason = problem.code(),
                    "rows of this topic cannot be sent: {problem}"
                );
                let retry_at = Instant::now() + BACKOFF.pause(0);
                self.problems.insert(topic, (problem, retry_at));
            }
        }
        self.show_problems();
    }

    fn show_problems(&self) {
        for reason in TopicProblem::CODES {
            let mut problems = self.problems.values();
            let is_present = problems.any(|(problem, _)| problem.code() == reason);
            let blocked = self.metrics.blocked.with_label_values(&[reason]);
            blocked.set(i64::from(is_present));
        }
    }
}
