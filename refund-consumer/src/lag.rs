//! How far this process is behind, in each partition that it has.
//!
//! A record is done when its offset may be stored. The client's statistics show once a second where the group had come to,
//! and where a partition ends, without a request. They stand still while a partition is paused, so its end is also asked
//! for (`intake::ends`). The ages are computed at the scrape: they grow by themselves while nothing moves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::Statistics;
use rdkafka::TopicPartitionList;
use shared::runtime::clock::unix_millis;
use shared::runtime::metrics::MetricSet;

use crate::message::Record;

/// An end is asked for every two seconds, and may take two. Without an answer for so long nobody knows what waits.
const GRACE: Duration = Duration::from_secs(10);

/// The assigned partitions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Lag(Arc<Mutex<BTreeMap<Key, Partition>>>);

/// Topic and number.
type Key = (String, i32);

#[derive(Debug)]
struct Partition {
    /// The offset that this process stored last.
    stored: Option<i64>,
    /// Where the group had come to, as the client knows it.
    committed: Option<i64>,
    /// The first offset that the topic still holds.
    low: Option<i64>,
    /// The end as of the last fetch.
    fetched_end: Option<i64>,
    /// The end as it was asked for.
    asked_end: Option<i64>,
    /// When the broker last answered about the end.
    answered: Instant,
    /// Offset and Kafka's timestamp of each record that was received and is not done.
    received: VecDeque<(i64, i64)>,
    /// Since when records wait and none is done.
    waits_since: Option<Instant>,
}

impl Lag {
    /// Registers its metrics.
    pub fn new(set: &MetricSet) -> Self {
        let (lag, labels) = (Self::default(), ["topic", "partition"]);
        let (messages, seconds) = (lag.clone(), lag.clone());
        set.gauges_of(
            "refund_consumer_lag_messages",
            "Records of each assigned partition that are not claimed yet: its end minus the offset that is stored",
            labels,
            move || messages.each(|one| one.messages().map(as_number)),
        );
        set.gauges_of(
            "refund_consumer_lag_seconds",
            "Age of the oldest record of each assigned partition that is not claimed yet, by Kafka's timestamp; 0 if none waits; grows by itself while nothing moves. A consumer that has lost its group, because no broker responds, has no partition and no series",
            labels,
            move || {
                let (now, now_ms) = (Instant::now(), unix_millis());
                seconds.each(|one| Some(one.age(now, now_ms).as_secs_f64()))
            },
        );
        lag
    }

    pub(crate) fn assigned(&self, partitions: &TopicPartitionList) {
        let mut held = self.lock();
        for key in keys(partitions) {
            held.entry(key).or_insert_with(Partition::new);
        }
    }

    pub(crate) fn revoked(&self, partitions: &TopicPartitionList) {
        let mut held = self.lock();
        for key in keys(partitions) {
            held.remove(&key);
        }
    }

    /// This process takes no records any more, or begins again.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    pub(crate) fn received(&self, record: &Record) {
        self.change(&record.topic, record.partition, |one| {
            one.received.push_back((record.offset, record.time_ms));
        });
    }

    /// All records below the offset `next` are done.
    pub(crate) fn done(&self, topic: &str, partition: i32, next: i64) {
        self.change(topic, partition, |one| {
            one.stored = Some(next);
            while one.received.front().is_some_and(|(at, _)| *at < next) {
                one.received.pop_front();
            }
            one.waits_since = None;
        });
    }

    pub(crate) fn statistics(&self, statistics: &Statistics) {
        for ((topic, number), one) in self.lock().iter_mut() {
            let topic = statistics.topics.get(topic);
            let Some(shown) = topic.and_then(|topic| topic.partitions.get(number)) else {
                continue;
            };
            one.committed = known(shown.committed_offset);
            one.low = known(shown.lo_offset);
            // Without the records of open transactions, which nobody may read yet.
            one.fetched_end = known(shown.ls_offset);
            one.note_waiting();
        }
    }

    /// What the broker answered about the ends.
    pub(crate) fn ends(&self, ends: &TopicPartitionList) {
        for end in ends.elements() {
            let Some(offset) = end.offset().to_raw().and_then(known) else {
                continue;
            };
            self.change(end.topic(), end.partition(), |one| {
                (one.asked_end, one.answered) = (Some(offset), Instant::now());
            });
        }
    }

    fn change(&self, topic: &str, number: i32, change: impl FnOnce(&mut Partition)) {
        if let Some(one) = self.lock().get_mut(&(topic.to_owned(), number)) {
            change(one);
            one.note_waiting();
        }
    }

    fn each(&self, read: impl Fn(&Partition) -> Option<f64>) -> Vec<([String; 2], f64)> {
        let held = self.lock();
        let series = held.iter().filter_map(|((topic, number), one)| {
            Some(([topic.clone(), number.to_string()], read(one)?))
        });
        series.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Partition>> {
        // Every change leaves each partition whole, so a panic elsewhere does too.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partition {
    fn new() -> Self {
        Self {
            stored: None,
            committed: None,
            low: None,
            fetched_end: None,
            asked_end: None,
            answered: Instant::now(),
            received: VecDeque::new(),
            waits_since: None,
        }
    }

    /// A group that has committed nothing begins at the first record (`auto.offset.reset`), as does one whose records the
    /// topic holds no more.
    fn next(&self) -> Option<i64> {
        self.stored.or(self.committed).max(self.low)
    }

    /// `None` until the client knows both ends.
    fn messages(&self) -> Option<i64> {
        let end = self.fetched_end.max(self.asked_end)?;
        Some((end - self.next()?).max(0))
    }

    fn note_waiting(&mut self) {
        let waits = !self.received.is_empty() || self.messages().is_some_and(|count| count > 0);
        self.waits_since = waits.then(|| self.waits_since.unwrap_or_else(Instant::now));
    }

    /// A record that was not received yet has no timestamp here: its age counts from when it was noticed.
    fn age(&self, now: Instant, now_ms: i64) -> Duration {
        let since = |at: Instant| now.saturating_duration_since(at);
        let waits = match self.received.front() {
            Some((_, time_ms)) if *time_ms >= 0 => {
                let age_ms = now_ms.saturating_sub(*time_ms);
                Duration::from_millis(u64::try_from(age_ms).unwrap_or(0))
            }
            _ => self.waits_since.map(since).unwrap_or_default(),
        };
        let unknown_for = since(self.answered);
        if unknown_for > GRACE {
            waits.max(unknown_for)
        } else {
            waits
        }
    }
}

fn keys(partitions: &TopicPartitionList) -> Vec<Key> {
    let elements = partitions.elements();
    let key = elements
        .iter()
        .map(|one| (one.topic().to_owned(), one.partition()));
    key.collect()
}

/// librdkafka writes what it does not know as a negative number.
fn known(offset: i64) -> Option<i64> {
    (offset >= 0).then_some(offset)
}

fn as_number(messages: i64) -> f64 {
    f64::from(u32::try_from(messages).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn partition(next: i64, end: i64) -> Partition {
        Partition {
            committed: Some(next),
            fetched_end: Some(end),
            ..Partition::new()
        }
    }

    #[test]
    fn the_lag_is_what_lies_between_the_done_records_and_the_end() {
        let mut one = Partition::new();
        assert_eq!(one.messages(), None, "nothing is known yet");
        one.fetched_end = Some(10);
        assert_eq!(one.messages(), None);
        one.low = Some(4);
        assert_eq!(one.messages(), Some(6), "the group has committed nothing");
        one.committed = Some(7);
        assert_eq!(one.messages(), Some(3));
        one.stored = Some(9);
        assert_eq!(one.messages(), Some(1));
        one.asked_end = Some(15);
        assert_eq!(one.messages(), Some(6), "it is paused");
        one.low = Some(12);
        assert_eq!(one.messages(), Some(3), "the topic deletes what is old");
        one.stored = Some(20);
        assert_eq!(one.messages(), Some(0), "the end is from a moment ago");
    }

    #[test]
    fn the_age_is_that_of_the_oldest_record_by_its_timestamp_or_since_it_was_noticed() {
        let mut one = partition(5, 5);
        one.note_waiting();
        let now = one.answered;
        assert_eq!(one.age(now, 90_000), Duration::ZERO);
        one.fetched_end = Some(6);
        one.note_waiting();
        one.waits_since = Some(now);
        assert_eq!(one.age(now + SECOND * 3, 90_000), SECOND * 3);
        one.received.extend([(5, 60_000), (6, 80_000)]);
        assert_eq!(one.age(now + SECOND * 3, 90_000), SECOND * 30);
        assert_eq!(one.age(now, 50_000), Duration::ZERO, "a clock is wrong");
        one.received[0].1 = -1;
        assert_eq!(
            one.age(now + SECOND * 3, 90_000),
            SECOND * 3,
            "no timestamp"
        );
    }

    #[test]
    fn the_age_grows_while_kafka_does_not_respond() {
        let one = partition(5, 5);
        let now = one.answered;
        assert_eq!(one.age(now + GRACE, 0), Duration::ZERO);
        assert_eq!(one.age(now + GRACE + SECOND, 0), GRACE + SECOND);
    }
}
