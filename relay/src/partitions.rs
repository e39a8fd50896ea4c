//! The records in flight of each partition.
//!
//! A partition without a leader acknowledges nothing, perhaps for minutes. Its records would fill the window of rows in
//! flight and stop all others. So a partition that acknowledges nothing for a while is *stalled*: it gets no more
//! records than its share, and the records that it has do not count for the window.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The maximum number of unsettled rows, not counting those of stalled partitions: bounds memory, and what is sent
/// twice after a crash.
pub const MAX_UNSETTLED: usize = 8_192;
/// A partition is stalled if it has acknowledged nothing for this long: far above the time of an acknowledgement.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// A stalled partition gets no more records once it has its share: all of them together as much as the window, each at
/// least the first and at most the second number.
const SHARE: (usize, usize) = (64, 1_024);
const TOGETHER: usize = MAX_UNSETTLED;

/// Identifies a partition until [`Partitions::clear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionId(usize);

#[derive(Debug, Default)]
pub(crate) struct Partitions {
    ids: HashMap<Arc<str>, BTreeMap<usize, usize>>,
    all: Vec<Partition>,
}

#[derive(Debug)]
struct Partition {
    topic: Arc<str>,
    in_flight: usize,
    /// When it last acknowledged a record, or got one while it had none.
    moved: Instant,
    /// A row was held back since then.
    holds: bool,
}

impl Partition {
    fn is_stalled(&self, now: Instant) -> bool {
        self.in_flight > 0 && now.saturating_duration_since(self.moved) >= STALLED_AFTER
    }
}

impl Partitions {
    /// The partition of a key, as the producer's partitioner chooses it.
    pub(crate) fn of(&mut self, topic: &str, key: &str, partitions: usize) -> PartitionId {
        let number = partition_of(key.as_bytes(), partitions);
        if let Some(known) = self.ids.get(topic).and_then(|of| of.get(&number)) {
            return PartitionId(*known);
        }
        let topic: Arc<str> = Arc::from(topic);
        let id = self.all.len();
        self.ids
            .entry(Arc::clone(&topic))
            .or_default()
            .insert(number, id);
        self.all.push(Partition {
            topic,
            in_flight: 0,
            moved: Instant::now(),
            holds: false,
        });
        PartitionId(id)
    }

    pub(crate) fn topic(&self, id: PartitionId) -> &Arc<str> {
        &self.all[id.0].topic
    }

    /// Whether the partition takes no further record now.
    pub(crate) fn is_full(&self, id: PartitionId, now: Instant) -> bool {
        let partition = &self.all[id.0];
        partition.is_stalled(now) && partition.in_flight >= self.share(now)
    }

    pub(crate) fn is_stalled(&self, id: PartitionId, now: Instant) -> bool {
        self.all[id.0].is_stalled(now)
    }

    /// Whether the partition has exactly one record in flight.
    pub(crate) fn has_one_record(&self, id: PartitionId) -> bool {
        self.all[id.0].in_flight == 1
    }

    fn share(&self, now: Instant) -> usize {
        let stalled = self
            .all
            .iter()
            .filter(|partition| partition.is_stalled(now));
        (TOGETHER / stalled.count().max(1)).clamp(SHARE.0, SHARE.1)
    }

    /// A row of this partition was held back.
    pub(crate) fn note_held(&mut self, id: PartitionId) {
        self.all[id.0].holds = true;
    }

    pub(crate) fn note_sent(&mut self, id: PartitionId, now: Instant) {
        let partition = &mut self.all[id.0];
        if partition.in_flight == 0 {
            partition.moved = now;
        }
        partition.in_flight += 1;
    }

    /// Returns whether rows were held back because the partition was stalled.
    pub(crate) fn note_acknowledged(&mut self, id: PartitionId, now: Instant) -> bool {
        let partition = &mut self.all[id.0];
        partition.in_flight = partition.in_flight.saturating_sub(1);
        partition.moved = now;
        std::mem::take(&mut partition.holds)
    }

    /// The number of records in flight of stalled partitions.
    pub(crate) fn stalled_records(&self, now: Instant) -> usize {
        let stalled = self
            .all
            .iter()
            .filter(|partition| partition.is_stalled(now));
        stalled.map(|partition| partition.in_flight).sum()
    }

    /// The topics that have rows held back by stalled partitions, with the number of those partitions.
    pub(crate) fn holding(&self) -> BTreeMap<Arc<str>, i64> {
        let mut topics = BTreeMap::new();
        for partition in self.all.iter().filter(|partition| partition.holds) {
            *topics.entry(Arc::clone(&partition.topic)).or_default() += 1;
        }
        topics
    }

    /// The producer was destroyed: nothing is in flight, and every row is read again.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The partitioner of Java clients, `murmur2_random` of librdkafka, for a key that is there.
fn partition_of(key: &[u8], partitions: usize) -> usize {
    let positive = usize::try_from(murmur2(key) & 0x7fff_ffff).expect("31 bits");
    positive % partitions.max(1)
}

/// Kafka's `Utils.murmur2`.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c ^ length;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let k = u32::from_le_bytes(*word).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (k ^ (k >> 24)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let tail = rest
            .iter()
            .rev()
            .fold(0, |tail, byte| tail << 8 | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own test (`UtilsTest.testMurmur2`).
    #[test]
    fn the_hash_is_that_of_java_clients() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn only_a_stalled_partition_is_full_and_it_moves_again() {
        let mut partitions = Partitions::default();
        let start = Instant::now();
        let (one, other) = (partitions.of("t", "1", 1), partitions.of("u", "1", 1));
        for _ in 0..SHARE.1 {
            partitions.note_sent(one, start);
        }
        partitions.note_sent(other, start);
        let later = start + STALLED_AFTER;
        assert!(!partitions.is_full(one, start), "it may answer yet");
        assert!(partitions.is_full(one, later) && !partitions.is_full(other, later));
        assert_eq!(partitions.stalled_records(later), SHARE.1 + 1);
        assert!(
            !partitions.note_acknowledged(one, later),
            "nothing was held"
        );
        assert!(!partitions.is_full(one, later), "it moves");
        partitions.note_held(one);
        assert_eq!(partitions.holding().len(), 1);
        assert!(partitions.note_acknowledged(one, later));
    }
}
