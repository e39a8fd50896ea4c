//! Topics and partitions that take no records now, while others do.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Delivery;
use crate::partitions::PartitionId;
use crate::publisher::{Publish, TopicProblem};

/// For the log.
#[derive(Debug, thiserror::Error)]
#[error("partitions that acknowledge nothing, by topic: {0}")]
struct Standing(String);

impl<P: Publish> Delivery<P> {
    /// Requests the topics again that are in trouble, and shows what is in trouble.
    pub(crate) fn look_after_troubles(&mut self) {
        self.topics.retry(&self.publisher, Instant::now());
        self.has_recovered |= self.topics.take_recovered();
        self.show_troubles();
    }

    /// Whether a topic or a partition takes records again, so that its rows have to be read.
    pub(crate) fn take_recovered(&mut self) -> bool {
        std::mem::take(&mut self.has_recovered)
    }

    /// An operator has put rows aside or back.
    pub(crate) fn forget_troubles(&mut self) {
        self.topics.forget();
        self.topics.forget_troubles();
    }

    /// Whether a row of this topic with this key is held back.
    pub(crate) fn is_held(&mut self, topic: &str, key: &str) -> bool {
        if self.topics.is_in_trouble(topic) {
            return true;
        }
        let Some(known) = self.topics.known(topic) else {
            return false;
        };
        let partition = self.partitions.of(topic, key, known.partitions);
        self.takes_no_more(partition)
    }

    /// While no broker can be reached, no partition is worse than the others, and the window stops the reading.
    pub(super) fn takes_no_more(&mut self, partition: PartitionId) -> bool {
        let takes_no_more =
            self.metrics.no_broker.get() == 0 && self.partitions.is_full(partition, Instant::now());
        if takes_no_more {
            self.partitions.note_held(partition);
        }
        takes_no_more
    }

    /// The number of records in flight that leave their room in the window to others.
    pub(crate) fn standing_records(&self) -> usize {
        match self.metrics.no_broker.get() {
            0 => self.partitions.standing_records(Instant::now()),
            _ => 0,
        }
    }

    fn show_troubles(&mut self) {
        let holding = self.partitions.holding();
        let standing = i64::from(!holding.is_empty());
        let code = TopicProblem::PARTITION_STANDS;
        self.metrics
            .blocked
            .with_label_values(&[code])
            .set(standing);
        if holding.is_empty() {
            self.standing.ended();
        } else {
            self.standing.failed(&Standing(format!("{holding:?}")));
        }
        let mut shown: BTreeMap<_, _> = holding
            .into_iter()
            .map(|(topic, count)| ((topic.to_string(), code), count))
            .collect();
        let troubled = self.topics.troubled();
        shown.extend(troubled.map(|(topic, code)| ((topic.to_owned(), code), 1)));
        self.metrics.troubled_topics.set(shown);
    }
}
