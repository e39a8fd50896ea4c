//! The rows of one shard that are held back: their topic or partition is in trouble, or they follow such a row.
//!
//! There may be millions of them, and each read from the beginning would return them all. So the shard remembers how far
//! it knows every row (`up_to`), how many held rows lie there, and the exclusive or of their ids. With each sweep the rows
//! there are counted (module `held_counter`): if the numbers differ, a row committed late or was removed, and the shard is
//! read from 0 again. Nothing is forgotten, and nothing is read again and again.

use std::collections::{HashMap, HashSet};

use shared::domain::ids::{ReturnId, Shard};

use crate::topics::MAX_TROUBLES;

/// Every row up to an id is held, in flight, or gone.
#[derive(Debug, Default)]
pub(crate) struct HeldRows {
    /// Rises whenever all is forgotten, so that an older count is not compared with the rows that are held now.
    generation: usize,
    up_to: i64,
    rows: u64,
    xor: i64,
    /// The returns of these rows: a later event of one of them is held too.
    returns: IdSet,
    /// The topics of these rows, as long as they are not more than can be in trouble.
    topics: HashSet<String>,
}

/// What MySQL should find at and below `up_to`, beside the rows in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldCheck {
    pub(crate) shard: Shard,
    pub(crate) generation: usize,
    pub(crate) up_to: i64,
    pub(crate) rows: u64,
    pub(crate) xor: i64,
    pub(crate) in_flight: HashSet<i64>,
}

impl HeldRows {
    /// Nothing is held. The counts of no other tenure of the shard have this generation or a later one.
    pub(crate) fn starting_at(generation: usize) -> Self {
        Self {
            generation,
            ..Self::default()
        }
    }

    pub(crate) fn generation(&self) -> usize {
        self.generation
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Where reads begin; 0 if nothing is held.
    pub(crate) fn up_to(&self) -> i64 {
        if self.rows == 0 { 0 } else { self.up_to }
    }

    /// Whether every row up to `id` is known.
    pub(crate) fn reaches(&self, id: i64) -> bool {
        id <= self.up_to
    }

    pub(crate) fn has_return(&self, id: ReturnId) -> bool {
        self.returns.contains(id.0)
    }

    /// Whether rows of this topic may be held: true for any topic if there are very many.
    pub(crate) fn has_topic(&self, topic: &str) -> bool {
        self.topics.contains(topic) || self.topics.len() > MAX_TROUBLES
    }

    /// The next row is held.
    pub(crate) fn add(&mut self, id: i64, return_id: ReturnId, topic: &str) {
        self.up_to = id;
        self.rows += 1;
        self.xor ^= id;
        self.returns.insert(return_id.0);
        if !self.has_topic(topic) {
            self.topics.insert(topic.to_owned());
        }
    }

    /// The next row is in flight.
    pub(crate) fn pass(&mut self, id: i64) {
        self.up_to = id;
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::starting_at(self.generation + 1);
    }

    /// `None` if nothing is held. `unsettled` are the rows of the shard that are in flight or just deleted.
    pub(crate) fn check<'a>(
        &self,
        shard: Shard,
        unsettled: impl Iterator<Item = &'a i64>,
    ) -> Option<HeldCheck> {
        (self.rows > 0).then(|| HeldCheck {
            shard,
            generation: self.generation,
            up_to: self.up_to,
            rows: self.rows,
            xor: self.xor,
            in_flight: unsettled.copied().filter(|id| *id <= self.up_to).collect(),
        })
    }
}

/// A set of ids that grow by one: one bit each.
#[derive(Debug, Default)]
struct IdSet(HashMap<i64, [u64; WORDS]>);

const WORDS: usize = 16;
const BITS: i64 = 64 * 16;

impl IdSet {
    fn insert(&mut self, id: i64) {
        let (word, bit) = place(id);
        self.0.entry(id.div_euclid(BITS)).or_default()[word] |= bit;
    }

    fn contains(&self, id: i64) -> bool {
        let (word, bit) = place(id);
        let block = self.0.get(&id.div_euclid(BITS));
        block.is_some_and(|block| block[word] & bit != 0)
    }
}

/// The word and the bit of an id in its block.
fn place(id: i64) -> (usize, u64) {
    let within = usize::try_from(id.rem_euclid(BITS)).expect("below the number of bits");
    (within / 64, 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_ids_holds_what_was_inserted() {
        let ids = [0, 1, 63, 64, 1_023, 1_024, -1, i64::MIN, i64::MAX];
        let mut set = IdSet::default();
        ids.iter().for_each(|id| set.insert(*id));
        assert!(ids.iter().all(|id| set.contains(*id)));
        for other in [2, 62, 65, 1_022, 1_025, -2] {
            assert!(!set.contains(other), "{other}");
        }
    }

    #[test]
    fn rows_in_flight_are_passed_and_not_counted() {
        let mut held = HeldRows::default();
        held.pass(3);
        assert_eq!(held.up_to(), 0, "nothing is held: reads begin at 0");
        held.add(5, ReturnId(50), "a");
        held.pass(6);
        held.add(9, ReturnId(90), "b");
        assert_eq!((held.up_to(), held.rows()), (9, 2));
        assert!(held.has_return(ReturnId(50)) && !held.has_return(ReturnId(51)));
        assert!(held.has_topic("a") && held.has_topic("b") && !held.has_topic("c"));
        let check = held.check(Shard(2), [3, 6, 10].iter()).expect("rows");
        assert_eq!((check.xor, check.in_flight), (5 ^ 9, HashSet::from([3, 6])));
        held.clear();
        assert_eq!(held.check(Shard(2), [].iter()), None);
    }
}
