//! Topics and partitions that take no records now, while others do.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Delivery;
use crate::owned_shards::OwnedShards;
use crate::partitions::PartitionId;
use crate::publisher::{Publish, TopicProblem};

/// Whether a partition gets a further record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Some,
    /// It has many records and may still answer.
    AfterAnAnswer,
    /// It is stalled.
    None,
}

/// For the log.
#[derive(Debug, thiserror::Error)]
#[error("partitions that acknowledge nothing, by topic: {0}")]
struct Stalled(String);

impl<P: Publish> Delivery<P> {
    /// Requests the topics again that are in trouble, and shows what is in trouble.
    pub(crate) fn look_after_troubles(&mut self, shards: &OwnedShards) {
        let is_held = |topic: &str| shards.holds_topic(topic);
        self.topics.retry(&self.publisher, Instant::now(), is_held);
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
    pub(crate) fn is_held(&mut self, topic: &str, key: &str, shards: &OwnedShards) -> bool {
        if self.topics.is_in_trouble(topic) {
            return true;
        }
        let Some(known) = self.topics.known(topic) else {
            return false;
        };
        let partition = self.partitions.of(topic, key, known.partitions);
        self.room_of(partition, shards.unsettled()) == Room::None
    }

    /// While no broker can be reached, no partition is worse than the others, and the window stops the reading. While
    /// records are isolated, a stalled partition gets nothing more: an isolated record must be alone in its partition.
    pub(super) fn room_of(&mut self, partition: PartitionId, unsettled: usize) -> Room {
        let now = Instant::now();
        let is_full = match self.isolated.is_empty() {
            true => self.partitions.is_full(partition, unsettled, now),
            false => self.partitions.is_stalled(partition, now),
        };
        if self.has_no_broker {
            Room::Some
        } else if is_full {
            self.partitions.note_held(partition);
            Room::None
        } else if self.partitions.must_answer(partition, unsettled, now) {
            Room::AfterAnAnswer
        } else {
            Room::Some
        }
    }

    /// Whether a partition that may still answer has so many records that further rows should not be read.
    pub(super) fn is_crowded(&self, shards: &OwnedShards) -> bool {
        !self.has_no_broker
            && self
                .partitions
                .is_crowded(shards.unsettled(), Instant::now())
    }

    /// The number of records in flight that leave their room in the window to others.
    pub(crate) fn stalled_records(&self) -> usize {
        match self.has_no_broker {
            false => self.partitions.stalled_records(Instant::now()),
            true => 0,
        }
    }

    /// Whether records of partitions that are not stalled are in flight.
    pub(super) fn has_moving_records(&self, shards: &OwnedShards) -> bool {
        shards.in_flight() > self.stalled_records()
    }

    fn show_troubles(&mut self) {
        let holding = self.partitions.holding();
        let code = TopicProblem::PARTITION_STALLED;
        let blocked = self.metrics.blocked.with_label_values(&[code]);
        blocked.set(i64::from(!holding.is_empty()));
        self.metrics.no_broker.set(i64::from(self.has_no_broker));
        if holding.is_empty() {
            self.stalled.ended();
        } else {
            self.stalled.failed(&Stalled(format!("{holding:?}")));
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
