//! Which shards are ours, and until when.
//!
//! A lease is decided on the database's clock; this process trusts one only for 60 % of its length on its own
//! monotonic clock, counted from before the renewal was sent, so that it stops before anybody else may begin.
//! Renewal has a connection and a task of its own: a slow read or a slow broker must not cost a lease. A shard is
//! never dropped at once: it is marked as to be yielded, the pump flushes and deletes, and gives it back here.
//! A shard that an operator paused is yielded in the same way, and taken by nobody.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shared::domain::ids::Shard;
use sqlx::MySqlConnection;
use sqlx::mysql::MySqlConnectOptions;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::error::StoreError;
use crate::metrics::Metrics;
use crate::session::Session;
use crate::store::lease::{self as store, Lease};

/// Renewals in the length of a lease.
const RENEWALS: u32 = 5;
/// The same while we have less than our share, for shards are on their way to us, and after a round that failed: its
/// renewal may have taken a fifth of the lease, and trust ends at three fifths.
const RENEWALS_IN_HASTE: u32 = 20;

/// A shard that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub epoch: i64,
    pub redrive_gen: i64,
    /// Nothing may be sent after this.
    pub good_until: Instant,
    /// Another relay should have it, or it is paused: flush, then give it up.
    pub yielding: bool,
}

pub type Holdings = BTreeMap<Shard, Held>;

/// The pump's ends of the channels to the keeper.
#[derive(Debug)]
pub struct Leases {
    pub me: String,
    pub holdings: watch::Receiver<Holdings>,
    /// Shards to free, each under the epoch in which it was ours.
    pub given_up: mpsc::UnboundedSender<(Shard, i64)>,
    /// The longest that whoever follows the leases may look away: two such spells lie between the end of our trust, at
    /// 60 %, and that of the lease.
    pub patience: Duration,
}

/// Renews, takes and frees leases.
#[derive(Debug)]
pub struct Keeper {
    me: String,
    ttl: Duration,
    session: Session,
    holdings: watch::Sender<Holdings>,
    given_up: mpsc::UnboundedReceiver<(Shard, i64)>,
    metrics: Metrics,
}

impl Keeper {
    /// A keeper under a name that is fresh per process start, so that an owner in the table is one process's life.
    pub fn new(options: MySqlConnectOptions, ttl: Duration, metrics: Metrics) -> (Self, Leases) {
        let me = format!("relay-{}", uuid::Uuid::now_v7().simple());
        let (holdings, seen) = watch::channel(Holdings::new());
        let (give_up, given_up) = mpsc::unbounded_channel();
        let keeper = Self {
            me: me.clone(),
            ttl,
            session: Session::new(options, ttl / RENEWALS),
            holdings,
            given_up,
            metrics,
        };
        let leases = Leases {
            me,
            holdings: seen,
            given_up: give_up,
            patience: ttl / RENEWALS,
        };
        (keeper, leases)
    }

    /// Keeps the leases until `stop`, then frees them all. Once `leaving`, none is taken any more, and each is to be given
    /// up as soon as the pump has flushed it. Cancel `stop` only when the pump has flushed all.
    pub async fn run(mut self, leaving: CancellationToken, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let is_leaving = leaving.is_cancelled();
            let renewals = match self.round(is_leaving).await {
                Ok(is_short) if is_short => RENEWALS_IN_HASTE,
                Ok(_) => RENEWALS,
                Err(error) => {
                    self.metrics.database_error("lease", &error);
                    RENEWALS_IN_HASTE
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = leaving.cancelled(), if !is_leaving => {}
                Some((shard, epoch)) = self.given_up.recv() => {
                    self.release(shard, epoch).await;
                    while let Ok((shard, epoch)) = self.given_up.try_recv() {
                        self.release(shard, epoch).await;
                    }
                }
                () = tokio::time::sleep(self.ttl / renewals) => {}
            }
        }
        self.leave().await;
    }

    /// Answers whether we had less than our share. Taking is a unit of work of its own: it may wait for a row that somebody
    /// holds locked, and what was renewed is ours all the same.
    async fn round(&mut self, is_leaving: bool) -> Result<bool, StoreError> {
        let (me, ttl, asked) = (self.me.clone(), self.ttl, Instant::now());
        let (leases, live) = self
            .session
            .run(move |mut conn| async move {
                let result = renew(&mut conn, &me, ttl, is_leaving).await;
                (conn, result)
            })
            .await?;
        let plan = if is_leaving {
            Plan::leaving(&leases, &self.me)
        } else {
            plan(&leases, &live, &self.me)
        };
        let good_until = asked + self.ttl.mul_f64(0.6);
        self.show(&leases, &plan.give, good_until);
        if plan.take.is_empty() {
            return Ok(plan.is_short);
        }
        let me = self.me.clone();
        let leases = self
            .session
            .run(move |mut conn| async move {
                let result = take(&mut conn, &me, ttl, &plan.take).await;
                (conn, result)
            })
            .await?;
        self.show(&leases, &plan.give, good_until);
        Ok(plan.is_short)
    }

    fn show(&self, leases: &[Lease], give: &[Shard], good_until: Instant) {
        let ours = leases
            .iter()
            .filter(|lease| lease.owner.as_ref() == Some(&self.me));
        let held = ours.map(|lease| {
            let held = Held {
                epoch: lease.epoch,
                redrive_gen: lease.redrive_gen,
                good_until,
                yielding: give.contains(&lease.shard),
            };
            (lease.shard, held)
        });
        self.holdings.send_replace(held.collect());
    }

    async fn release(&mut self, shard: Shard, epoch: i64) {
        if !is_still_yielded(&self.holdings.borrow(), shard, epoch) {
            return;
        }
        let me = self.me.clone();
        let released = self
            .session
            .run(move |mut conn| async move {
                let result = store::release(&mut conn, &me, shard, epoch).await;
                (conn, result)
            })
            .await;
        match released {
            Ok(()) => tracing::info!(shard = shard.0, "shard handed over"),
            // It stays ours and is offered again in the next round.
            Err(error) => self.metrics.database_error("release", &error),
        }
    }

    async fn leave(mut self) {
        let me = self.me.clone();
        let left = self
            .session
            .run(move |mut conn| async move {
                let result = store::leave(&mut conn, &me).await;
                (conn, result)
            })
            .await;
        match left {
            Ok(()) => tracing::info!("leases released"),
            Err(error) => self.metrics.database_error("leave", &error),
        }
        self.session.close().await;
    }
}

/// Beats and renews; answers all leases and the live relays. One that is leaving is no longer counted by the others.
async fn renew(
    conn: &mut MySqlConnection,
    me: &str,
    ttl: Duration,
    is_leaving: bool,
) -> sqlx::Result<(Vec<Lease>, Vec<String>)> {
    if is_leaving {
        store::sign_off(conn, me).await?;
    } else {
        store::beat(conn, me, ttl).await?;
    }
    store::renew(conn, me, ttl).await?;
    let live = store::read_live(conn, ttl).await?;
    Ok((store::read_all(conn).await?, live))
}

/// Takes what is still free of `shards`; answers all leases.
async fn take(
    conn: &mut MySqlConnection,
    me: &str,
    ttl: Duration,
    shards: &[Shard],
) -> sqlx::Result<Vec<Lease>> {
    store::acquire(conn, me, ttl, shards).await?;
    store::read_all(conn).await
}

/// Whether the last round still wanted the shard given up. If a pause or a newcomer came and went in between, the
/// pump has been told to keep it and may be sending again: releasing it now would let another relay send beside it.
fn is_still_yielded(holdings: &Holdings, shard: Shard, epoch: i64) -> bool {
    let held = holdings.get(&shard);
    held.is_some_and(|held| held.epoch == epoch && held.yielding)
}

/// What a relay should change about its holdings.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    take: Vec<Shard>,
    give: Vec<Shard>,
    /// We have less than our share, before taking anything.
    is_short: bool,
}

impl Plan {
    /// Everything goes, nothing comes.
    fn leaving(leases: &[Lease], me: &str) -> Self {
        let mine = leases
            .iter()
            .filter(|lease| lease.owner.as_deref() == Some(me));
        Self {
            take: Vec::new(),
            give: mine.map(|lease| lease.shard).collect(),
            is_short: false,
        }
    }
}

/// Fair share: the shards divided by the live relays, the remainder to the first by id; the shares add up.
/// Paused shards are nobody's: they count for no share, and whoever holds one gives it up.
fn plan(leases: &[Lease], live: &[String], me: &str) -> Plan {
    let relays = live.len().max(1);
    let rank = live.iter().position(|id| id == me).unwrap_or(0);
    let (paused, open): (Vec<&Lease>, Vec<&Lease>) = leases.iter().partition(|lease| lease.paused);
    let share = open.len() / relays + usize::from(rank < open.len() % relays);
    let is_mine = |lease: &&&Lease| lease.owner.as_deref() == Some(me);
    let shard = |lease: &&Lease| lease.shard;
    let mine: Vec<Shard> = open.iter().filter(is_mine).map(shard).collect();
    let free = open
        .iter()
        .filter(|lease| lease.owner.is_none() || (lease.expired && !is_mine(lease)))
        .map(shard);
    let take = free.take(share.saturating_sub(mine.len())).collect();
    let is_short = mine.len() < share;
    let above_share = mine.into_iter().skip(share);
    Plan {
        take,
        is_short,
        give: above_share
            .chain(paused.iter().filter(is_mine).map(shard))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(owners: &[Option<&str>], expired: &[usize]) -> Vec<Lease> {
        let lease = |(n, owner): (usize, &Option<&str>)| Lease {
            shard: Shard(u8::try_from(n).expect("few")),
            owner: owner.map(str::to_owned),
            epoch: 1,
            expired: expired.contains(&n),
            redrive_gen: 0,
            paused: false,
        };
        owners.iter().enumerate().map(lease).collect()
    }

    fn live(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    fn shards(ids: &[u8]) -> Vec<Shard> {
        ids.iter().copied().map(Shard).collect()
    }

    #[test]
    fn a_lone_relay_takes_every_free_shard() {
        let all = leases(&[None, None, Some("b"), Some("b")], &[2]);
        let plan = plan(&all, &live(&["a"]), "a");
        assert_eq!(plan.take, shards(&[0, 1, 2]), "b still holds 3");
    }

    #[test]
    fn what_is_above_the_share_is_given_up_and_only_free_shards_are_taken() {
        let all = leases(&[Some("a"); 5], &[]);
        let both = live(&["a", "b"]);
        assert_eq!(
            plan(&all, &both, "a"),
            Plan {
                give: shards(&[3, 4]),
                ..Plan::default()
            }
        );
        let waits = Plan {
            is_short: true,
            ..Plan::default()
        };
        assert_eq!(plan(&all, &both, "b"), waits);
    }

    #[test]
    fn shares_add_up_for_any_number_of_relays() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let all = leases(&[None; 16], &[]);
        for count in 1..=names.len() {
            let live = live(&names[..count]);
            let taken: usize = live.iter().map(|me| plan(&all, &live, me).take.len()).sum();
            assert_eq!(taken, 16, "{count} relays");
        }
    }

    #[test]
    fn our_own_expired_lease_is_renewed_and_not_taken_anew() {
        let all = leases(&[Some("a"), Some("a")], &[0, 1]);
        assert_eq!(plan(&all, &live(&["a"]), "a"), Plan::default());
    }

    #[test]
    fn who_leaves_gives_up_its_own_and_takes_nothing() {
        let all = leases(&[Some("a"), Some("b"), None, Some("a")], &[1]);
        let expected = Plan {
            give: shards(&[0, 3]),
            ..Plan::default()
        };
        assert_eq!(Plan::leaving(&all, "a"), expected);
    }

    #[test]
    fn a_paused_shard_is_given_up_and_taken_by_nobody() {
        let mut all = leases(&[Some("a"), None, Some("gone"), None], &[2]);
        all[0].paused = true;
        all[1].paused = true;
        let expected = Plan {
            take: shards(&[2, 3]),
            give: shards(&[0]),
            is_short: true,
        };
        assert_eq!(plan(&all, &live(&["a"]), "a"), expected);
        all[2].paused = true;
        assert_eq!(plan(&all, &live(&["b"]), "b").take, shards(&[3]));
    }

    #[test]
    fn shares_are_shares_of_the_shards_that_are_not_paused() {
        let mut all = leases(&[Some("a"); 6], &[]);
        for lease in &mut all[..4] {
            lease.paused = true;
        }
        let plan = plan(&all, &live(&["a", "b"]), "a");
        assert_eq!(plan.give, shards(&[5, 0, 1, 2, 3]), "one of two stays");
    }

    #[test]
    fn a_shard_that_we_were_told_to_keep_after_all_is_not_released() {
        let held = |yielding| Held {
            epoch: 3,
            redrive_gen: 0,
            good_until: Instant::now(),
            yielding,
        };
        let told = |yielding| Holdings::from([(Shard(1), held(yielding))]);
        assert!(is_still_yielded(&told(true), Shard(1), 3));
        assert!(!is_still_yielded(&told(false), Shard(1), 3));
        assert!(!is_still_yielded(&told(true), Shard(1), 2));
        assert!(!is_still_yielded(&told(true), Shard(2), 3));
    }
}
