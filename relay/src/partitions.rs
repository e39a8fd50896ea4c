//! The records in flight of each partition.
//!
//! A partition without a leader acknowledges nothing, perhaps for hours. Its records would fill the window of rows in
//! flight and stop all others. So a partition that acknowledges nothing for a while is *stalled*, and its records do not
//! count for the window. And each partition gets only a part of the room that all of them have left, as a switch divides
//! its buffer between ports (Choudhury and Hahne, dynamic queue length thresholds): however many partitions stall, and
//! whenever they do, some room is left for the others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The maximum number of unsettled rows, not counting those of stalled partitions: bounds memory, and what is sent
/// twice after a crash.
pub const MAX_UNSETTLED: usize = 8_192;
/// A partition is stalled if it has acknowledged nothing for this long: far above the time of an acknowledgement.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// The maximum number of all unsettled rows, but for one record of each partition.
const MAX_WITH_STALLED: usize = 2 * MAX_UNSETTLED;
/// A partition with this part of the room that is left gets no more records if it is stalled. If it may still answer, no
/// further rows are read. Four partitions or more fill the window. A single one has 3,276 records and those of two reads,
/// enough for 30,000 records a second when an acknowledgement takes 100 ms.
const PART: usize = 4;
/// A partition that may still answer gets no more records with this part of the room. Above the first limit, because
/// rows that were read before would have to be read again.
const PART_WHILE_MOVING: usize = 2;

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
    number: usize,
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
            number,
            in_flight: 0,
            moved: Instant::now(),
            holds: false,
        });
        PartitionId(id)
    }

    /// Its number in its topic.
    pub(crate) fn number(&self, id: PartitionId) -> usize {
        self.all[id.0].number
    }

    pub(crate) fn topic(&self, id: PartitionId) -> &Arc<str> {
        &self.all[id.0].topic
    }

    /// Whether the partition is stalled and gets no further record. `unsettled` counts the rows of all partitions.
    pub(crate) fn is_full(&self, id: PartitionId, unsettled: usize, now: Instant) -> bool {
        let partition = &self.all[id.0];
        partition.is_stalled(now) && partition.in_flight >= limit(unsettled, PART)
    }

    /// Whether the partition gets no further record before it answers, or is stalled.
    pub(crate) fn must_answer(&self, id: PartitionId, unsettled: usize, now: Instant) -> bool {
        let partition = &self.all[id.0];
        !partition.is_stalled(now) && partition.in_flight >= limit(unsettled, PART_WHILE_MOVING)
    }

    /// Whether a partition that may still answer has so many records that further rows should not be read.
    pub(crate) fn is_crowded(&self, unsettled: usize, now: Instant) -> bool {
        let limit = limit(unsettled, PART);
        let mut all = self.all.iter();
        all.any(|partition| partition.in_flight >= limit && !partition.is_stalled(now))
    }

    pub(crate) fn is_stalled(&self, id: PartitionId, now: Instant) -> bool {
        self.all[id.0].is_stalled(now)
    }

    /// Whether the partition has exactly one record in flight.
    pub(crate) fn has_one_record(&self, id: PartitionId) -> bool {
        self.all[id.0].in_flight == 1
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

/// A part of the room that is left; at least one record, or a partition could never show that it moves.
fn limit(unsettled: usize, part: usize) -> usize {
    (MAX_WITH_STALLED.saturating_sub(unsettled) / part).max(1)
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

    /// Partitions without acknowledgements, and the number of records that all of them have.
    #[derive(Default)]
    struct Silent {
        partitions: Partitions,
        unsettled: usize,
    }

    impl Silent {
        fn partition(&mut self, number: usize) -> PartitionId {
            self.partitions.of(&format!("t{number}"), "1", 1)
        }

        /// Sends to one partition as much as it gets. Returns how many records that were.
        fn fill(&mut self, id: PartitionId, now: Instant) -> usize {
            let before = self.unsettled;
            while !self.partitions.is_full(id, self.unsettled, now)
                && !self.partitions.must_answer(id, self.unsettled, now)
            {
                self.partitions.note_sent(id, now);
                self.unsettled += 1;
            }
            self.unsettled - before
        }
    }

    #[test]
    fn only_a_stalled_partition_is_full_and_it_moves_again() {
        let mut silent = Silent::default();
        let start = Instant::now();
        let (one, other) = (silent.partition(1), silent.partition(2));
        silent.fill(one, start);
        silent.partitions.note_sent(other, start);
        let (later, unsettled) = (start + STALLED_AFTER, silent.unsettled + 1);
        let mut partitions = silent.partitions;
        assert!(
            !partitions.is_full(one, unsettled, start),
            "it may answer yet"
        );
        assert!(partitions.is_full(one, unsettled, later));
        assert!(!partitions.is_full(other, unsettled, later));
        assert_eq!(partitions.stalled_records(later), unsettled);
        assert!(!partitions.is_crowded(unsettled, later), "both are stalled");
        assert!(
            !partitions.note_acknowledged(one, later),
            "nothing was held"
        );
        assert!(!partitions.is_full(one, unsettled, later), "it moves");
        partitions.note_held(one);
        assert_eq!(partitions.holding().len(), 1);
        assert!(partitions.note_acknowledged(one, later));
    }

    #[test]
    fn partitions_that_stall_one_after_the_other_leave_room_for_the_next_one() {
        let mut silent = Silent::default();
        let mut now = Instant::now();
        let mut sent = Vec::new();
        for number in 0..8 {
            let next = silent.partition(number);
            sent.push(silent.fill(next, now));
            now += STALLED_AFTER;
        }
        assert!(
            sent[0] > 5_000 && sent[1] > 3_000 && sent[7] > 250,
            "{sent:?}"
        );
        assert!(silent.unsettled < MAX_WITH_STALLED);
        assert_eq!(
            silent.partitions.stalled_records(now),
            silent.unsettled,
            "nothing of them counts for the window"
        );
    }

    #[test]
    fn any_number_of_stalled_partitions_stays_within_the_bound_and_leaves_room() {
        for (count, room) in [(12, 1_000), (64, 200), (1_000, 8), (20_000, 1)] {
            let mut silent = Silent::default();
            let start = Instant::now();
            let stalled: Vec<PartitionId> = (0..count).map(|n| silent.partition(n)).collect();
            for id in &stalled {
                silent.partitions.note_sent(*id, start);
                silent.unsettled += 1;
            }
            let later = start + STALLED_AFTER;
            // One record each, as long as one of them gets a record.
            let mut before = 0;
            while silent.unsettled > before {
                before = silent.unsettled;
                for id in &stalled {
                    if !silent.partitions.is_full(*id, silent.unsettled, later) {
                        silent.partitions.note_sent(*id, later);
                        silent.unsettled += 1;
                    }
                }
            }
            assert!(silent.unsettled <= MAX_WITH_STALLED.max(count));
            let healthy = silent.partition(count);
            let sent = silent.fill(healthy, later);
            assert!(sent >= room, "{sent} beside {count}");
        }
    }

    #[test]
    fn a_single_partition_has_thousands_of_records_before_reads_wait_for_it() {
        let mut silent = Silent::default();
        let now = Instant::now();
        let one = silent.partition(1);
        while !silent.partitions.is_crowded(silent.unsettled, now) {
            silent.partitions.note_sent(one, now);
            silent.unsettled += 1;
        }
        assert_eq!(silent.unsettled, 3_277);
        assert!(
            silent.fill(one, now) > 2_000,
            "the rows of two reads are sent"
        );
    }
}
