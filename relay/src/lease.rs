//! Which shards this relay owns, and until when.
//!
//! Leases follow the database's clock. This process trusts a lease only for 60 % of its length, by its own clocks that go
//! on while the machine is suspended, counted from before the renewal was sent. So it stops sending before another relay can acquire the shard.
//! Leases are renewed by a task with its own connection: a slow read or a slow broker must not cost a lease.
//! A shard is never released at once. The keeper marks it as handing over; the pump flushes it and deletes its rows; then
//! the keeper releases it. A shard that an operator paused is handed over in the same way, and no relay acquires it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use shared::domain::ids::Shard;
use shared::runtime::clock::{Expiry, Moment};
use shared::runtime::db::{Database, DbError};
use sqlx::MySqlConnection;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, WorkMonitor};
use crate::rebalance::Rebalance;
use crate::store::lease::{self as store, LeaseRow};

/// Renewals within the length of a lease.
pub(crate) const RENEWALS: u32 = 5;
/// Renewals within the length of a lease while the relay owns less than its share, because other relays are about to hand
/// over shards; and after a failed round. Such a round may take a fifth of the lease, and trust ends at three fifths.
const FAST_RENEWALS: u32 = 20;
/// The part of a lease for which this process trusts it.
const TRUSTED: f64 = 0.6;

/// The lease of a shard that this relay owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLease {
    pub epoch: i64,
    pub redrive_gen: i64,
    /// Nothing may be sent when this is over.
    pub trust: Expiry,
    /// Another relay should own the shard, or it is paused: flush it, then release it.
    pub handing_over: bool,
}

pub type HeldLeases = BTreeMap<Shard, HeldLease>;

/// How the pump talks to the keeper.
#[derive(Debug)]
pub struct LeaseHandle {
    pub owner: String,
    pub held: watch::Receiver<HeldLeases>,
    /// Shards to release, each with the epoch in which it was owned.
    pub release: mpsc::UnboundedSender<(Shard, i64)>,
    /// The deadline of one unit of the pump's database work, during which it does not check its leases. Two of them fit
    /// between the end of trust, at 60 %, and the end of the lease.
    pub work_deadline: Duration,
}

/// Renews, acquires and releases leases.
#[derive(Debug)]
pub struct LeaseKeeper {
    owner: String,
    ttl: Duration,
    database: Database,
    held: watch::Sender<HeldLeases>,
    releases: mpsc::UnboundedReceiver<(Shard, i64)>,
    renewing: WorkMonitor,
    releasing: WorkMonitor,
    metrics: Metrics,
}

impl LeaseKeeper {
    /// A keeper with a new owner name: an owner in the table stands for one run of one process.
    pub fn new(database: Database, ttl: Duration, metrics: Metrics) -> (Self, LeaseHandle) {
        let owner = format!("relay-{}", uuid::Uuid::now_v7().simple());
        let (held, seen) = watch::channel(HeldLeases::new());
        let (release, releases) = mpsc::unbounded_channel();
        let keeper = Self {
            owner: owner.clone(),
            ttl,
            database,
            held,
            releases,
            renewing: metrics.monitor("lease", "renewing leases"),
            releasing: metrics.monitor("release", "releasing a lease"),
            metrics,
        };
        let handle = LeaseHandle {
            owner,
            held: seen,
            release,
            work_deadline: ttl / RENEWALS,
        };
        (keeper, handle)
    }

    /// Keeps the leases until `stop`, then releases them all. After `leaving` it acquires none, and hands over every
    /// shard as soon as the pump has flushed it. If `pump_ended` was not cancelled by then, the pump still may have records
    /// in flight: the leases stay, and end by themselves.
    pub async fn run(
        mut self,
        leaving: CancellationToken,
        pump_ended: CancellationToken,
        stop: CancellationToken,
    ) {
        while !stop.is_cancelled() {
            let is_leaving = leaving.is_cancelled();
            let round = self.renew_and_rebalance(is_leaving).await;
            let renewals = match self.renewing.note(round) {
                Some(is_below_share) if !is_below_share => RENEWALS,
                Some(_) | None => FAST_RENEWALS,
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = leaving.cancelled(), if !is_leaving => {}
                Some((shard, epoch)) = self.releases.recv() => {
                    self.release(shard, epoch).await;
                    while let Ok((shard, epoch)) = self.releases.try_recv() {
                        self.release(shard, epoch).await;
                    }
                }
                () = tokio::time::sleep(self.ttl / renewals) => {}
            }
        }
        if pump_ended.is_cancelled() {
            self.release_all().await;
        } else {
            tracing::warn!("the pump has not ended: its leases are left to expire");
        }
    }

    /// Returns whether the relay owned less than its share. Acquiring is its own unit of work: it may wait for a locked
    /// row, and the leases that were renewed are held in any case.
    async fn renew_and_rebalance(&self, is_leaving: bool) -> Result<bool, DbError> {
        let asked = Moment::now();
        let (leases, live_relays) = self.renew(is_leaving).await?;
        let rebalance = if is_leaving {
            Rebalance::leaving(&leases, &self.owner)
        } else {
            Rebalance::fair_share(&leases, &live_relays, &self.owner)
        };
        let trust = Expiry::new(asked, self.ttl.mul_f64(TRUSTED));
        self.publish(&leases, &rebalance.hand_over, trust);
        if !rebalance.acquire.is_empty() {
            let leases = self.acquire(rebalance.acquire).await?;
            self.publish(&leases, &rebalance.hand_over, trust);
        }
        Ok(rebalance.is_below_share)
    }

    /// Returns all leases and the live relays. The other relays no longer count one that is leaving.
    async fn renew(&self, is_leaving: bool) -> Result<(Vec<LeaseRow>, Vec<String>), DbError> {
        let (owner, ttl) = (self.owner.clone(), self.ttl);
        self.run_unit("renew_leases", move |conn| {
            Box::pin(async move {
                if is_leaving {
                    store::deregister(conn, &owner).await?;
                } else {
                    store::heartbeat(conn, &owner, ttl).await?;
                }
                store::renew(conn, &owner, ttl).await?;
                let live_relays = store::read_live_relays(conn, ttl).await?;
                Ok((store::read_leases(conn).await?, live_relays))
            })
        })
        .await
    }

    /// Acquires those of `shards` that are still free. Returns all leases.
    async fn acquire(&self, shards: Vec<Shard>) -> Result<Vec<LeaseRow>, DbError> {
        let (owner, ttl) = (self.owner.clone(), self.ttl);
        self.run_unit("acquire_leases", move |conn| {
            Box::pin(async move {
                store::acquire(conn, &owner, ttl, &shards).await?;
                Ok(store::read_leases(conn).await?)
            })
        })
        .await
    }

    fn publish(&self, leases: &[LeaseRow], hand_over: &[Shard], trust: Expiry) {
        let paused = leases.iter().filter(|lease| lease.paused).count();
        let paused = i64::try_from(paused).unwrap_or(i64::MAX);
        self.metrics.paused_shards.set(paused);
        let ours = leases
            .iter()
            .filter(|lease| lease.owner.as_ref() == Some(&self.owner));
        let held = ours.map(|lease| {
            let held = HeldLease {
                epoch: lease.epoch,
                redrive_gen: lease.redrive_gen,
                trust,
                handing_over: hand_over.contains(&lease.shard),
            };
            (lease.shard, held)
        });
        self.held.send_replace(held.collect());
    }

    async fn release(&mut self, shard: Shard, epoch: i64) {
        if !is_still_handing_over(&self.held.borrow(), shard, epoch) {
            return;
        }
        let owner = self.owner.clone();
        let released: Result<(), DbError> = self
            .run_unit("release_lease", move |conn| {
                Box::pin(async move { Ok(store::release(conn, &owner, shard, epoch).await?) })
            })
            .await;
        // After a failure the shard stays ours, and the pump releases it again in the next round.
        if self.releasing.note(released).is_some() {
            tracing::info!(shard = shard.0, "shard handed over");
        }
    }

    async fn release_all(&self) {
        let owner = self.owner.clone();
        let released: Result<(), DbError> = self
            .run_unit("release_leases", move |conn| {
                Box::pin(async move { Ok(store::release_all(conn, &owner).await?) })
            })
            .await;
        let mut leaving = self.metrics.monitor("leave", "releasing all leases");
        if leaving.note(released).is_some() {
            tracing::info!("leases released");
        }
        self.database.close().await;
    }

    async fn run_unit<T, F>(&self, name: &'static str, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, DbError>>
            + Send
            + 'static,
    {
        self.database.run(name, self.ttl / RENEWALS, work).await
    }
}

/// Whether the last round still wanted this shard handed over. If a pause or a new relay came and went in between, the
/// pump keeps the shard and may be sending again; releasing it now would let another relay send at the same time.
fn is_still_handing_over(held: &HeldLeases, shard: Shard, epoch: i64) -> bool {
    let lease = held.get(&shard);
    lease.is_some_and(|lease| lease.epoch == epoch && lease.handing_over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_the_pump_keeps_after_all_is_not_released() {
        let lease = |handing_over| HeldLease {
            epoch: 3,
            redrive_gen: 0,
            trust: Expiry::new(Moment::now(), Duration::ZERO),
            handing_over,
        };
        let held = |handing_over| HeldLeases::from([(Shard(1), lease(handing_over))]);
        assert!(is_still_handing_over(&held(true), Shard(1), 3));
        assert!(!is_still_handing_over(&held(false), Shard(1), 3));
        assert!(!is_still_handing_over(&held(true), Shard(1), 2));
        assert!(!is_still_handing_over(&held(true), Shard(2), 3));
    }
}
