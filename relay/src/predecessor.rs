//! The predecessor rule: an event with seq n > 1 is sent only after seq n−1.
//!
//! Reading alone cannot keep the events of a return in order. If a transaction stalls before its COMMIT, its row (seq 2)
//! appears below rows that were read long ago, and seq 3 may be read first. So seq n is sent only if this pump sent n−1
//! itself ([`SentSeqs`]), or if a look-up in the table finds no lower seq of that return that still has to be sent. A
//! look-up after seq n was read is enough: n−1 committed before n could even lock the return.
//!
//! `SentSeqs` belongs to one shard under one lease epoch. It is cleared whenever the pump gets a new producer, and
//! whenever rows of the shard are parked or put back.

use std::collections::{HashMap, HashSet};

use shared::domain::ids::ReturnId;

use crate::parked_keys::ParkedKeys;
use crate::pending::{Pending, RowKey};

/// The number of returns remembered per shard; at most twice as many. A forgotten return costs a look-up, never order.
const REMEMBERED: usize = 16_384;

/// The highest seq that was given to the producer, for the most recent returns.
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

    /// Whether seq may be sent without a look-up.
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
pub struct UnverifiedRow {
    pub key: RowKey,
    pub return_id: ReturnId,
    pub seq: i32,
    pub msg_key: String,
}

/// A row that the look-up found, which may have to be sent before an unverified row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowBefore {
    /// A row of the same return in the outbox: before the unverified row, that row itself, or after it.
    InOutbox {
        return_id: ReturnId,
        seq: i32,
        id: i64,
        topic: String,
    },
    /// A parked row of the same order.
    Parked {
        msg_key: String,
        return_id: ReturnId,
        seq: i32,
    },
}

/// The result of the look-up for the unverified rows of one batch.
#[derive(Debug, Default)]
pub struct Predecessors {
    /// Rows without an unsent predecessor.
    clear: HashSet<RowKey>,
    /// For each row with unsent predecessors, the lowest id of those.
    unsent: HashMap<RowKey, i64>,
    /// Rows whose first unsent predecessor is held back.
    held: HashSet<RowKey>,
    /// Rows that come after a parked row of their order.
    parked: HashSet<RowKey>,
}

/// What may be done with a row now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    Send,
    /// Send row `id` of the same shard first.
    WaitFor(i64),
    /// Its first unsent predecessor is held back, so hold this one back, too.
    Hold,
    /// An earlier row of the same order is parked, so park this one, too.
    Park,
}

/// The rows whose predecessor neither was sent, as far as `allows` knows, nor comes before them in the batch.
pub fn unverified(rows: &[Pending], allows: impl Fn(&Pending) -> bool) -> Vec<&Pending> {
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

impl From<&Pending> for UnverifiedRow {
    fn from(row: &Pending) -> Self {
        Self {
            key: row.key,
            return_id: row.return_id,
            seq: row.seq,
            msg_key: row.msg_key.clone(),
        }
    }
}

impl UnverifiedRow {
    fn comes_after(&self, (seq, id): (i32, i64)) -> bool {
        seq < self.seq && id < self.key.id
    }
}

impl Predecessors {
    /// Decides about each unverified row from the rows that the look-up found. A lower row that `is_sent` does not
    /// hold back any row. `is_held` says whether a row of a topic with the key of the unverified row is held back.
    pub fn of(
        unverified: &[UnverifiedRow],
        found: &[RowBefore],
        is_sent: impl Fn(RowKey, i64) -> bool,
        mut is_held: impl FnMut(&UnverifiedRow, &str) -> bool,
    ) -> Self {
        let mut in_outbox: HashMap<ReturnId, Vec<(i32, i64, &str)>> = HashMap::new();
        let mut parked = ParkedKeys::default();
        for row in found {
            match row {
                RowBefore::InOutbox {
                    return_id,
                    seq,
                    id,
                    topic,
                } => {
                    let rows = in_outbox.entry(*return_id).or_default();
                    rows.push((*seq, *id, topic));
                }
                RowBefore::Parked {
                    msg_key,
                    return_id,
                    seq,
                } => parked.insert(msg_key, *return_id, *seq),
            }
        }
        let mut result = Self::default();
        for row in unverified {
            let same_return = in_outbox.get(&row.return_id).into_iter().flatten();
            let lowest_unsent = same_return
                .filter(|(seq, id, _)| row.comes_after((*seq, *id)))
                .map(|(_, id, topic)| (*id, *topic))
                .filter(|(id, _)| !is_sent(row.key, *id))
                .min();
            if parked.holds(&row.msg_key, row.return_id, row.seq) {
                result.parked.insert(row.key);
                continue;
            }
            match lowest_unsent {
                Some((_, topic)) if is_held(row, topic) => result.held.insert(row.key),
                Some((lowest, _)) => result.unsent.insert(row.key, lowest).is_none(),
                None => result.clear.insert(row.key),
            };
        }
        result
    }

    /// Holds back rows that follow a row that is held back.
    pub fn hold(&mut self, rows: &[UnverifiedRow]) {
        self.held.extend(rows.iter().map(|row| row.key));
    }

    pub fn next_step(&self, row: &Pending, sent_seqs: &SentSeqs) -> NextStep {
        if self.parked.contains(&row.key) {
            NextStep::Park
        } else if self.held.contains(&row.key) {
            NextStep::Hold
        } else if sent_seqs.allows(row.return_id, row.seq) || self.clear.contains(&row.key) {
            NextStep::Send
        } else {
            // If no look-up was needed for the row, its predecessor in this batch was not sent.
            NextStep::WaitFor(self.unsent.get(&row.key).copied().unwrap_or(row.key.id))
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
            trace: None,
            created_at: OffsetDateTime::UNIX_EPOCH,
            created: Instant::now(),
        }
    }

    fn unverified_ids(rows: &[Pending], sent_seqs: &SentSeqs) -> Vec<i64> {
        let allows = |row: &Pending| sent_seqs.allows(row.return_id, row.seq);
        unverified(rows, allows)
            .iter()
            .map(|row| row.key.id)
            .collect()
    }

    #[test]
    fn only_a_row_without_a_known_predecessor_is_unverified() {
        let mut sent_seqs = SentSeqs::default();
        sent_seqs.note(ReturnId(1), 4);
        let rows = [
            row(1, 1, 5),
            row(2, 2, 1),
            row(3, 2, 2),
            row(4, 3, 2),
            row(5, 3, 3),
            row(6, 4, 1),
            row(7, 4, 3),
        ];
        assert_eq!(unverified_ids(&rows, &sent_seqs), [4, 7]);
    }

    #[test]
    fn an_unverified_row_waits_for_the_lowest_row_that_was_not_sent() {
        let mut rows = [
            row(50, 1, 4),
            row(51, 1, 5),
            row(60, 2, 2),
            row(70, 3, 2),
            row(80, 4, 3),
            row(90, 5, 3),
        ];
        rows[3].msg_key = "parked".to_owned();
        let unverified = [0, 2, 3, 4, 5].map(|n: usize| UnverifiedRow::from(&rows[n]));
        let in_outbox = |return_id, seq, id| RowBefore::InOutbox {
            return_id: ReturnId(return_id),
            seq,
            id,
            topic: if id == 85 { "troubled" } else { "t" }.to_owned(),
        };
        let found = [
            in_outbox(1, 1, 10),
            in_outbox(1, 2, 20),
            in_outbox(1, 3, 30),
            in_outbox(1, 4, 50),
            in_outbox(2, 3, 40),
            in_outbox(4, 2, 90),
            in_outbox(5, 1, 85),
            in_outbox(5, 2, 86),
            RowBefore::Parked {
                msg_key: "parked".to_owned(),
                return_id: ReturnId(100),
                seq: 1,
            },
        ];
        let predecessors = Predecessors::of(
            &unverified,
            &found,
            |_, id| id == 10,
            |_, topic| topic == "troubled",
        );
        let sent_seqs = SentSeqs::default();
        let steps: Vec<NextStep> = rows
            .iter()
            .map(|row| predecessors.next_step(row, &sent_seqs))
            .collect();
        assert_eq!(
            steps,
            [
                NextStep::WaitFor(20),
                NextStep::WaitFor(51),
                NextStep::Send,
                NextStep::Park,
                NextStep::Send,
                NextStep::Hold
            ]
        );
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_most_recent_returns() {
        let mut sent_seqs = SentSeqs::default();
        let many = i64::try_from(REMEMBERED).expect("small") * 3;
        for id in 0..many {
            sent_seqs.note(ReturnId(id), 1);
        }
        assert!(sent_seqs.recent.len() + sent_seqs.older.len() <= 2 * REMEMBERED);
        assert!(sent_seqs.allows(ReturnId(many - 1), 2));
        assert!(!sent_seqs.allows(ReturnId(0), 2));
    }

    #[test]
    fn a_resent_event_does_not_lower_the_known_seq() {
        let mut sent_seqs = SentSeqs::default();
        sent_seqs.note(ReturnId(1), 5);
        sent_seqs.note(ReturnId(1), 2);
        assert!(sent_seqs.allows(ReturnId(1), 6));
    }
}
