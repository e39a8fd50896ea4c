//! What the pump knows about one shard that it owns, under one lease epoch.
//!
//! `unsettled` holds the ids that this process has enqueued or has seen acknowledged and that may still be in the
//! table: a pass that meets them again does not send them again.

use std::collections::HashSet;
use std::time::Instant;

use shared::domain::ids::Shard;

use crate::acks::InFlight;
use crate::cursor::Cursor;
use crate::lease::Held;
use crate::pending::{Pending, RowKey};
use crate::predecessor::SentSeqs;

#[derive(Debug)]
pub(crate) struct ShardWork {
    pub(crate) held: Held,
    pub(crate) cursor: Cursor,
    pub(crate) memory: SentSeqs,
    pub(crate) in_flight: InFlight,
    pub(crate) unsettled: HashSet<i64>,
    /// Message keys with parked rows: any later event of theirs follows.
    pub(crate) parked: HashSet<String>,
    /// `parked` must be read, again or for the first time, before anything is sent.
    pub(crate) parked_unknown: bool,
    /// When giving the shard up began.
    pub(crate) yielding_since: Option<Instant>,
}

impl ShardWork {
    /// A shard just taken: nothing is known about it.
    pub(crate) fn adopted(shard: Shard, held: Held, first_number: usize) -> Self {
        Self {
            held,
            cursor: Cursor::at_zero(shard, Instant::now()),
            memory: SentSeqs::default(),
            in_flight: InFlight::starting_at(first_number),
            unsettled: HashSet::new(),
            parked: HashSet::new(),
            parked_unknown: true,
            yielding_since: None,
        }
    }

    pub(crate) fn is_readable(&self, now: Instant) -> bool {
        !self.held.yielding && !self.parked_unknown && now < self.held.good_until
    }

    /// Nothing in flight, nothing to delete.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    pub(crate) fn note_sent(&mut self, row: &Pending) {
        self.in_flight.push(row.key, row.born);
        self.unsettled.insert(row.key.id);
        self.memory.note(row.return_id, row.seq);
    }

    pub(crate) fn note_gone(&mut self, key: RowKey) {
        self.unsettled.remove(&key.id);
    }

    /// The producer is gone: what it had not delivered is read and sent again, in order, from the beginning. Keys of rows
    /// that were about to be parked are no longer held against their orders.
    pub(crate) fn start_over(&mut self) {
        for key in self.in_flight.forget() {
            self.unsettled.remove(&key.id);
        }
        self.reset_order();
    }

    /// Rows were parked or put back: nothing remembered about the shard's order holds any more.
    pub(crate) fn reset_order(&mut self) {
        self.parked_unknown = true;
        self.memory.clear();
        self.cursor.rewind_to(1);
    }
}
