//! The predecessor rule: an event with seq n > 1 is sent only after n−1.
//!
//! Reading alone cannot keep a return's events in order: a transaction that stalled before its COMMIT shows its row
//! (seq 2) below rows that were read long ago, and seq 3 may be read first. So seq n is sent only if this pump
//! itself sent n−1 ([`SentSeqs`]), or after the table was asked and holds no lower seq of that return that is
//! still to be sent. Asking after seq n was read is enough: n−1 committed before n could even lock the return.
//!
//! The memory belongs to one shard under one lease epoch and is emptied with it, whenever the pump starts over with new
//! producers, and whenever rows of the shard are parked or put back.

use std::collections::{HashMap, HashSet};

use shared::domain::ids::ReturnId;

use crate::pending::{Pending, RowKey};

/// Returns remembered per shard; twice as many at most. A forgotten one costs a look-up, never order.
const REMEMBERED: usize = 16_384;

/// The highest seq that was given to the producer, for the returns most recently seen.
#[derive(Debug, Default)]
pub struct SentSeqs {
    recent: HashMap<ReturnId, i32>,
    older: HashMap<ReturnId, i32>,
}

impl SentSeqs {
    pub fn note(&mut self, return_id: ReturnId, seq: i32) {
        if self.recent.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.recent);
        }
        let before = self.get(return_id).unwrap_or(seq);
        self.recent.insert(return_id, seq.max(before));
    }

    /// Whether seq may be sent without asking the table.
    pub fn allows(&self, return_id: ReturnId, seq: i32) -> bool {
        seq <= 1 || self.get(return_id).is_some_and(|sent| sent >= seq - 1)
    }

    pub fn clear(&mut self) {
        self.recent.clear();
        self.older.clear();
    }

    fn get(&self, return_id: ReturnId) -> Option<i32> {
        let recent = self.recent.get(&return_id);
        recent.or_else(|| self.older.get(&return_id)).copied()
    }
}

/// A row whose predecessor is not known to be sent.
#[derive(Debug, Clone)]
pub struct Suspect {
    pub key: RowKey,
    pub return_id: ReturnId,
    pub seq: i32,
    pub msg_key: String,
}

/// What the tables hold about the returns and orders of suspects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A row of a suspect's return in the outbox: before the suspect, the suspect itself, or after it.
    Waiting {
        return_id: ReturnId,
        seq: i32,
        id: i64,
    },
    /// A parked row of a suspect's order.
    Parked { msg_key: String },
}

/// The answers for the suspects of one batch.
#[derive(Debug, Default)]
pub struct Verdicts {
    cleared: HashSet<RowKey>,
    /// The lowest row that must go first.
    behind: HashMap<RowKey, i64>,
    parked: HashSet<RowKey>,
}

/// What may be done with a row now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Send,
    /// Row `id` of the same shard goes first.
    After(i64),
    /// A row of the same order is parked: follow it there.
    Follow,
}

/// Rows that `memory` does not vouch for, and that do not follow their predecessor within the batch.
pub fn suspects(rows: &[Pending], allows: impl Fn(&Pending) -> bool) -> Vec<&Pending> {
    let mut before: HashMap<ReturnId, i32> = HashMap::new();
    rows.iter()
        .filter(|row| {
            let follows = before
                .get(&row.return_id)
                .is_some_and(|seq| *seq >= row.seq - 1);
            if row.seq <= 1 || !follows {
                before.insert(row.return_id, row.seq);
            } else {
                before
                    .entry(row.return_id)
                    .and_modify(|seq| *seq = row.seq.max(*seq));
            }
            !follows && !allows(row)
        })
        .collect()
}

impl From<&Pending> for Suspect {
    fn from(row: &Pending) -> Self {
        Self {
            key: row.key,
            return_id: row.return_id,
            seq: row.seq,
            msg_key: row.msg_key.clone(),
        }
    }
}

impl Suspect {
    fn comes_after(&self, found: &(i32, i64)) -> bool {
        found.0 < self.seq && found.1 < self.key.id
    }
}

impl Verdicts {
    /// Judges suspects by what was found; a lower row that `is_sent` already is no obstacle.
    pub fn of(
        suspects: &[Suspect],
        found: &[Found],
        is_sent: impl Fn(RowKey, i64) -> bool,
    ) -> Self {
        let mut waiting: HashMap<ReturnId, Vec<(i32, i64)>> = HashMap::new();
        let mut parked = HashSet::new();
        for found in found {
            match found {
                Found::Waiting { return_id, seq, id } => {
                    waiting.entry(*return_id).or_default().push((*seq, *id));
                }
                Found::Parked { msg_key } => {
                    parked.insert(msg_key);
                }
            }
        }
        let mut verdicts = Self::default();
        for suspect in suspects {
            let same_return = waiting.get(&suspect.return_id).into_iter().flatten();
            let lower = same_return.filter(|found| suspect.comes_after(found));
            let lowest = lower
                .map(|found| found.1)
                .filter(|id| !is_sent(suspect.key, *id))
                .min();
            if parked.contains(&suspect.msg_key) {
                verdicts.parked.insert(suspect.key);
            } else if let Some(lowest) = lowest {
                verdicts.behind.insert(suspect.key, lowest);
            } else {
                verdicts.cleared.insert(suspect.key);
            }
        }
        verdicts
    }

    pub fn decide(&self, row: &Pending, memory: &SentSeqs) -> Decision {
        if self.parked.contains(&row.key) {
            Decision::Follow
        } else if memory.allows(row.return_id, row.seq) || self.cleared.contains(&row.key) {
            Decision::Send
        } else {
            // Not a suspect itself: its predecessor in this batch did not go.
            Decision::After(self.behind.get(&row.key).copied().unwrap_or(row.key.id))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use shared::domain::ids::{EventId, Shard};
    use time::OffsetDateTime;

    use super::*;

    fn row(id: i64, return_id: i64, seq: i32) -> Pending {
        Pending {
            key: RowKey {
                shard: Shard(3),
                id,
                event_id: EventId::generate(),
            },
            return_id: ReturnId(return_id),
            seq,
            event_type: "return.approved".to_owned(),
            topic: "t".to_owned(),
            msg_key: "1".to_owned(),
            payload: Vec::new(),
            traceparent: None,
            tracestate: None,
            created_at: OffsetDateTime::UNIX_EPOCH,
            born: Instant::now(),
        }
    }

    fn suspect_ids(rows: &[Pending], memory: &SentSeqs) -> Vec<i64> {
        let allows = |row: &Pending| memory.allows(row.return_id, row.seq);
        suspects(rows, allows)
            .iter()
            .map(|row| row.key.id)
            .collect()
    }

    #[test]
    fn only_a_row_without_known_predecessor_is_suspect() {
        let mut memory = SentSeqs::default();
        memory.note(ReturnId(1), 4);
        let rows = [
            row(1, 1, 5),
            row(2, 2, 1),
            row(3, 2, 2),
            row(4, 3, 2),
            row(5, 3, 3),
            row(6, 4, 1),
            row(7, 4, 3),
        ];
        assert_eq!(suspect_ids(&rows, &memory), [4, 7]);
    }

    #[test]
    fn a_suspect_goes_after_the_lowest_row_that_was_not_sent() {
        let mut rows = [
            row(50, 1, 4),
            row(51, 1, 5),
            row(60, 2, 2),
            row(70, 3, 2),
            row(80, 4, 3),
        ];
        rows[3].msg_key = "parked".to_owned();
        let suspects = [0, 2, 3, 4].map(|n: usize| Suspect::from(&rows[n]));
        let waiting = |return_id, seq, id| Found::Waiting {
            return_id: ReturnId(return_id),
            seq,
            id,
        };
        let found = [
            waiting(1, 1, 10),
            waiting(1, 2, 20),
            waiting(1, 3, 30),
            waiting(1, 4, 50),
            waiting(2, 3, 40),
            waiting(4, 2, 90),
            Found::Parked {
                msg_key: "parked".to_owned(),
            },
        ];
        let verdicts = Verdicts::of(&suspects, &found, |_, id| id == 10);
        let memory = SentSeqs::default();
        let decisions: Vec<Decision> = rows
            .iter()
            .map(|row| verdicts.decide(row, &memory))
            .collect();
        assert_eq!(
            decisions,
            [
                Decision::After(20),
                Decision::After(51),
                Decision::Send,
                Decision::Follow,
                Decision::Send
            ]
        );
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_recent() {
        let mut memory = SentSeqs::default();
        let many = i64::try_from(REMEMBERED).expect("small") * 3;
        for id in 0..many {
            memory.note(ReturnId(id), 1);
        }
        assert!(memory.recent.len() + memory.older.len() <= 2 * REMEMBERED);
        assert!(memory.allows(ReturnId(many - 1), 2));
        assert!(!memory.allows(ReturnId(0), 2));
    }

    #[test]
    fn a_resent_event_does_not_lower_what_is_known() {
        let mut memory = SentSeqs::default();
        memory.note(ReturnId(1), 5);
        memory.note(ReturnId(1), 2);
        assert!(memory.allows(ReturnId(1), 6));
    }
}
