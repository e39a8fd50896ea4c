//! Following the leases: shards come, go, are yielded to another relay, or get rows put back.

use std::time::{Duration, Instant};

use shared::domain::ids::Shard;

use super::Pump;
use crate::error::Failure;
use crate::publisher::Publish;
use crate::shard_work::ShardWork;
use crate::store;

/// A record that was to be sent alone and never came again was taken away by somebody.
const ALONE_AT_MOST: Duration = Duration::from_secs(60);

impl<P: Publish> Pump<P> {
    /// Brings `shards` in line with the holdings, by this process's own clock.
    pub(super) async fn follow_leases(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.holdings_changed) {
            self.note_terms();
            self.adopt();
        }
        // One look at the clock for both: a lease that ends between them would leave records in flight that nobody
        // counts.
        let now = Instant::now();
        if self.has_lost_with_records_in_flight(now) {
            return Err(Failure::LeaseLost);
        }
        self.drop_lost(now);
        self.alone
            .retain(|_, since| now.duration_since(*since) < ALONE_AT_MOST);
        if self.hand_over_is_late() {
            return Err(Failure::HandOverLate);
        }
        self.give_up_settled();
        if self.shards.values().any(|work| work.parked_unknown) {
            self.load_parked_keys().await;
        }
        self.metrics.owned_shards.set(count(self.shards.len()));
        self.metrics.unsettled_rows.set(count(self.unsettled()));
        Ok(())
    }

    /// The holdings as they are now, and with them the terms of the shards that we work on.
    pub(super) fn note_terms(&mut self) {
        self.holdings = self.leases.holdings.borrow().clone();
        for (shard, work) in &mut self.shards {
            let Some(held) = self.holdings.get(shard) else {
                continue;
            };
            if held.epoch != work.held.epoch {
                continue;
            }
            if held.redrive_gen != work.held.redrive_gen {
                work.reset_order();
                // What was too large may have been put back because its topic takes more now.
                self.topics.forget();
            }
            work.held = *held;
            work.yielding_since = held
                .yielding
                .then(|| work.yielding_since.unwrap_or_else(Instant::now));
        }
    }

    fn adopt(&mut self) {
        let now = Instant::now();
        for (shard, held) in &self.holdings {
            if held.yielding && !self.shards.contains_key(shard) {
                // Given up before, but the release did not reach the table.
                let _ = self.leases.given_up.send((*shard, held.epoch));
            } else if now < held.good_until && !self.shards.contains_key(shard) {
                self.era += 1;
                self.next_number += 1 << 32;
                let work = ShardWork::adopted(*shard, *held, self.next_number);
                self.shards.insert(*shard, work);
                tracing::info!(shard = shard.0, epoch = held.epoch, "shard taken");
            }
        }
    }

    fn is_lost(&self, shard: Shard, work: &ShardWork, now: Instant) -> bool {
        let held = self.holdings.get(&shard);
        held.is_none_or(|held| held.epoch != work.held.epoch) || now >= work.held.good_until
    }

    pub(super) fn has_lost_with_records_in_flight(&self, now: Instant) -> bool {
        let mut shards = self.shards.iter();
        shards.any(|(shard, work)| !work.in_flight.is_empty() && self.is_lost(*shard, work, now))
    }

    /// Forgets shards that are no longer ours. Deletions under way go on: they name their rows.
    pub(super) fn drop_lost(&mut self, now: Instant) {
        let lost: Vec<Shard> = self
            .shards
            .iter()
            .filter(|(shard, work)| self.is_lost(**shard, work, now))
            .map(|(shard, _)| *shard)
            .collect();
        for shard in lost {
            self.shards.remove(&shard);
            self.metrics.leases_lost.inc();
            // A later renewal may give it back.
            self.holdings.remove(&shard);
            tracing::warn!(shard = shard.0, "lease lost");
        }
    }

    /// A record of a shard to be given up has been in flight for too long.
    fn hand_over_is_late(&self) -> bool {
        let is_late =
            |since: Option<Instant>| since.is_some_and(|s| s.elapsed() > self.args.drain());
        self.shards
            .values()
            .any(|work| !work.in_flight.is_empty() && is_late(work.yielding_since))
    }

    /// A shard to be given up is not read; once all of it is settled it goes.
    pub(super) fn give_up_settled(&mut self) {
        let is_settled = |(_, work): &(&Shard, &ShardWork)| work.held.yielding && work.is_settled();
        let settled: Vec<(Shard, i64)> = self
            .shards
            .iter()
            .filter(is_settled)
            .map(|(shard, work)| (*shard, work.held.epoch))
            .collect();
        for given_up in settled {
            self.shards.remove(&given_up.0);
            // If the keeper is gone, the process is ending and the lease ends by itself.
            let _ = self.leases.given_up.send(given_up);
        }
    }

    /// Until this is known nothing of a shard may be sent: an event of a parked key follows its order.
    async fn load_parked_keys(&mut self) {
        let unknown = self.shards.iter().filter(|(_, work)| work.parked_unknown);
        let shards: Vec<Shard> = unknown.map(|(shard, _)| *shard).collect();
        let loaded = self
            .session
            .run(move |mut conn| async move {
                let keys = store::read_parked_keys(&mut conn, &shards).await;
                (conn, keys)
            })
            .await;
        let keys = match loaded {
            Ok(keys) => keys,
            Err(error) => {
                self.metrics.database_error("parked_keys", &error);
                tokio::time::sleep(super::RETRY_PAUSE).await;
                return;
            }
        };
        for (shard, work) in self
            .shards
            .iter_mut()
            .filter(|(_, work)| work.parked_unknown)
        {
            let ours = keys.iter().filter(|(of, _)| of == shard);
            work.parked = ours.map(|(_, key)| key.clone()).collect();
            work.parked_unknown = false;
        }
    }
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
