//! The names of all topics, needed only while so many topics are in trouble that no other names are asked for: a healthy
//! topic is one of these.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::publisher::TopicProblem;

/// Kafka lists its topics this often, so that a topic that is created is found.
const LIST_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct ExistingTopics {
    names: HashSet<String>,
    /// `None`: never.
    list_at: Option<Instant>,
    is_requested: bool,
}

impl ExistingTopics {
    pub(super) fn has(&self, topic: &str) -> bool {
        self.names.contains(topic)
    }

    /// Whether to ask Kafka now. If so, the response is awaited from now on.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let is_due = !self.is_requested && self.list_at.is_none_or(|at| now >= at);
        self.is_requested |= is_due;
        is_due
    }

    /// Returns whether there are new names. Without an answer, the old names count.
    pub(super) fn take(&mut self, listed: Result<HashSet<String>, TopicProblem>) -> bool {
        self.is_requested = false;
        self.list_at = Some(Instant::now() + LIST_EVERY);
        let Ok(names) = listed else {
            return false;
        };
        let has_new = !names.is_subset(&self.names);
        self.names = names;
        has_new
    }
}
