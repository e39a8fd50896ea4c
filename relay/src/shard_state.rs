//! What the pump knows about one shard that it owns, under one lease epoch.
//!
//! `unsettled` holds the ids of rows that were sent and may still be in the table. A read that returns one of them
//! again does not send it again.

use std::collections::HashSet;
use std::time::Instant;

use shared::domain::ids::Shard;

use crate::cursor::Cursor;
use crate::in_flight::InFlight;
use crate::lease::HeldLease;
use crate::pending::{Pending, RowKey};
use crate::predecessor::SentSeqs;

#[derive(Debug)]
pub(crate) struct ShardState {
    pub(crate) lease: HeldLease,
    pub(crate) cursor: Cursor,
    pub(crate) sent_seqs: SentSeqs,
    pub(crate) in_flight: InFlight,
    pub(crate) unsettled: HashSet<i64>,
    /// Message keys with parked rows: every later event of such a key is parked, too. `None`: must be read before
    /// anything is sent.
    pub(crate) parked_keys: Option<HashSet<String>>,
    /// When the hand-over of this shard began.
    pub(crate) handing_over_since: Option<Instant>,
}

impl ShardState {
    /// The state of a shard that was just acquired.
    pub(crate) fn new(shard: Shard, lease: HeldLease, first_number: usize) -> Self {
        Self {
            lease,
            cursor: Cursor::at_zero(shard, Instant::now()),
            sent_seqs: SentSeqs::default(),
            in_flight: InFlight::starting_at(first_number),
            unsettled: HashSet::new(),
            parked_keys: None,
            handing_over_since: None,
        }
    }

    pub(crate) fn is_readable(&self, now: Instant) -> bool {
        !self.lease.handing_over && self.parked_keys.is_some() && now < self.lease.valid_until
    }

    pub(crate) fn has_parked(&self, msg_key: &str) -> bool {
        let keys = self.parked_keys.as_ref();
        keys.is_some_and(|keys| keys.contains(msg_key))
    }

    /// Nothing is in flight, and every acknowledged row is deleted.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    pub(crate) fn note_sent(&mut self, row: &Pending) {
        self.in_flight.push(row.key, row.created);
        self.unsettled.insert(row.key.id);
        self.sent_seqs.note(row.return_id, row.seq);
    }

    pub(crate) fn note_deleted(&mut self, key: RowKey) {
        self.unsettled.remove(&key.id);
    }

    /// The producer was destroyed: everything that it had not delivered is read and sent again, in order. Acknowledged
    /// rows stay unsettled until they are deleted.
    pub(crate) fn reset_in_flight(&mut self) {
        for key in self.in_flight.forget_all() {
            self.unsettled.remove(&key.id);
        }
        self.reset_order();
    }

    /// Reads the shard again from its beginning, with its parked keys. Needed whenever rows were parked or put back: then
    /// nothing that is remembered about the order of its events holds any more.
    pub(crate) fn reset_order(&mut self) {
        self.parked_keys = None;
        self.sent_seqs.clear();
        self.cursor.rewind_to(1);
    }
}
