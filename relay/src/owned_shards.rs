//! The shards that this relay owns, with the state of each.
//!
//! Leases end by this process's own clock, even if the keeper has no news. A shard leaves this map in two ways: its
//! lease is lost, or all its rows are settled and it is handed over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shared::domain::ids::Shard;
use shared::runtime::clock::Moment;

use crate::lease::{HeldLeases, LeaseHandle};
use crate::metrics::Metrics;
use crate::parked_keys::ParkedKeys;
use crate::pending::RowKey;
use crate::shard_state::ShardState;
use crate::store::lease::FencingToken;
use crate::store::parking::ParkedRow;

#[derive(Debug)]
pub(crate) struct OwnedShards {
    leases: LeaseHandle,
    held: HeldLeases,
    /// The keeper has published leases that `held` does not reflect yet.
    has_news: bool,
    states: BTreeMap<Shard, ShardState>,
    /// Record numbers of the next shard begin here: two tenures of a shard never share a number.
    next_number: usize,
    metrics: Metrics,
}

impl OwnedShards {
    pub(crate) fn new(leases: LeaseHandle, metrics: Metrics) -> Self {
        Self {
            leases,
            held: HeldLeases::new(),
            has_news: true,
            states: BTreeMap::new(),
            next_number: 0,
            metrics,
        }
    }

    /// Waits until the keeper publishes leases. `false`: the keeper has ended. Cancel-safe.
    pub(crate) async fn leases_changed(&mut self) -> bool {
        let changed = self.leases.held.changed().await;
        self.has_news = true;
        changed.is_ok()
    }

    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    pub(crate) fn work_deadline(&self) -> Duration {
        self.leases.work_deadline
    }

    pub(crate) fn get(&self, shard: Shard) -> Option<&ShardState> {
        self.states.get(&shard)
    }

    pub(crate) fn get_mut(&mut self, shard: Shard) -> Option<&mut ShardState> {
        self.states.get_mut(&shard)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Shard, &mut ShardState)> {
        self.states.iter_mut().map(|(shard, state)| (*shard, state))
    }

    /// The number of rows in flight, or acknowledged and not yet deleted.
    pub(crate) fn unsettled(&self) -> usize {
        let states = self.states.values();
        states.map(|state| state.unsettled.len()).sum()
    }

    /// The number of records that Kafka has not acknowledged.
    pub(crate) fn in_flight(&self) -> usize {
        let states = self.states.values();
        states.map(|state| state.in_flight.len()).sum()
    }

    /// Takes over the published leases. Returns whether an operator has put back rows.
    pub(crate) fn refresh_leases(&mut self) -> bool {
        self.held = self.leases.held.borrow().clone();
        let mut has_redrive = false;
        for (shard, state) in &mut self.states {
            let Some(lease) = self.held.get(shard) else {
                continue;
            };
            if lease.epoch != state.lease.epoch {
                continue;
            }
            if lease.redrive_gen != state.lease.redrive_gen {
                state.reset_order();
                has_redrive = true;
            }
            state.lease = *lease;
            let since = || state.handing_over_since.unwrap_or_else(Instant::now);
            state.handing_over_since = lease.handing_over.then(since);
        }
        has_redrive
    }

    /// Begins to work on shards whose lease is new. Returns whether there was one.
    pub(crate) fn adopt_new(&mut self) -> bool {
        let mut acquired = Vec::new();
        for (shard, lease) in &self.held {
            if self.states.contains_key(shard) {
                continue;
            }
            if lease.handing_over {
                // We released it before, but the release did not reach the table.
                let _ = self.leases.release.send((*shard, lease.epoch));
            } else if !lease.trust.is_over() {
                self.next_number += 1 << 32;
                let state = ShardState::new(*shard, *lease, self.next_number);
                self.states.insert(*shard, state);
                acquired.push((shard.0, lease.epoch));
            }
        }
        if !acquired.is_empty() {
            tracing::info!(shards.epochs = ?acquired, "shards acquired");
        }
        !acquired.is_empty()
    }

    pub(crate) fn has_lost_records_in_flight(&self, now: Moment) -> bool {
        let mut states = self.states.iter();
        states.any(|(shard, state)| !state.in_flight.is_empty() && self.is_lost(*shard, state, now))
    }

    /// Forgets shards whose lease is lost. Deletes in progress go on: they need no lease.
    pub(crate) fn drop_lost(&mut self, now: Moment) {
        let is_lost = |(shard, state): &(&Shard, &ShardState)| self.is_lost(**shard, state, now);
        let states = self.states.iter();
        let lost: Vec<Shard> = states.filter(is_lost).map(|(shard, _)| *shard).collect();
        if lost.is_empty() {
            return;
        }
        for shard in &lost {
            self.states.remove(shard);
            self.metrics.leases_lost.inc();
            // A later renewal may bring it back.
            self.held.remove(shard);
        }
        let shards: Vec<u8> = lost.iter().map(|shard| shard.0).collect();
        tracing::warn!(?shards, "leases lost");
    }

    fn is_lost(&self, shard: Shard, state: &ShardState, now: Moment) -> bool {
        let lease = self.held.get(&shard);
        lease.is_none_or(|lease| lease.epoch != state.lease.epoch)
            || state.lease.trust.is_over_at(now)
    }

    /// Whether a record of a shard that is handed over has been in flight for longer than `limit`.
    pub(crate) fn is_hand_over_late(&self, limit: Duration) -> bool {
        let is_late = |since: Option<Instant>| since.is_some_and(|since| since.elapsed() > limit);
        self.states
            .values()
            .any(|state| !state.in_flight.is_empty() && is_late(state.handing_over_since))
    }

    /// Releases the shards that are handed over and settled.
    pub(crate) fn release_settled(&mut self) {
        let can_go =
            |(_, state): &(&Shard, &ShardState)| state.lease.handing_over && state.is_settled();
        let states = self.states.iter().filter(can_go);
        let settled: Vec<(Shard, i64)> = states
            .map(|(shard, state)| (*shard, state.lease.epoch))
            .collect();
        for (shard, epoch) in settled {
            self.states.remove(&shard);
            // If the keeper has ended, the process is ending, and the lease expires.
            let _ = self.leases.release.send((shard, epoch));
        }
    }

    /// Shards whose parked keys must be read before anything of them is sent.
    pub(crate) fn without_parked_keys(&self) -> Vec<Shard> {
        let states = self.states.iter();
        let unknown = states.filter(|(_, state)| state.parked_keys.is_none());
        unknown.map(|(shard, _)| *shard).collect()
    }

    /// Sets the parked keys of the shards that have none yet.
    pub(crate) fn set_parked_keys(&mut self, rows: &[ParkedRow]) {
        let unknown = self.states.iter_mut();
        for (shard, state) in unknown.filter(|(_, state)| state.parked_keys.is_none()) {
            let keys = state.parked_keys.insert(ParkedKeys::default());
            for row in rows.iter().filter(|row| row.shard == *shard) {
                keys.insert(&row.msg_key, row.return_id, row.seq);
            }
        }
    }

    /// A row was not sent: its shard is read again from `id` on, and from the row itself at the latest.
    pub(crate) fn put_back(&mut self, key: RowKey, id: i64) {
        if let Some(state) = self.states.get_mut(&key.shard) {
            state.rewind_to(id.min(key.id));
        }
    }

    /// The number of rows that reads pass over because they are held back.
    pub(crate) fn held_rows(&self) -> u64 {
        self.states.values().map(|state| state.held.rows()).sum()
    }

    /// Whether reads pass over rows of this topic.
    pub(crate) fn holds_topic(&self, topic: &str) -> bool {
        let mut states = self.states.values();
        states.any(|state| state.held.has_topic(topic))
    }

    /// The producer was destroyed: everything that it had not delivered is read again.
    pub(crate) fn reset_in_flight(&mut self) {
        self.states
            .values_mut()
            .for_each(ShardState::reset_in_flight);
    }

    /// The token for parking rows of a shard. `None` if the shard is not owned.
    pub(crate) fn fencing_token(&self, shard: Shard) -> Option<FencingToken> {
        self.states.get(&shard).map(|state| FencingToken {
            shard,
            owner: self.leases.owner.clone(),
            epoch: state.lease.epoch,
            redrive_gen: state.lease.redrive_gen,
        })
    }

    pub(crate) fn update_gauges(&self) {
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.owned_shards.set(count(self.states.len()));
        self.metrics.unsettled_rows.set(count(self.unsettled()));
        let held = i64::try_from(self.held_rows()).unwrap_or(i64::MAX);
        self.metrics.held_back_rows.set(held);
    }
}
