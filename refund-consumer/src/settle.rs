//! Findings in, rows out: many outcomes in one transaction.
//!
//! Lock order: orders (for update), returns, attempts. A success is written whoever brings it. The body may run
//! several times; after a lost COMMIT the second run finds the row saying so already.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use shared::domain::actor::Actor;
use shared::domain::eligibility::OrderFacts;
use shared::domain::event::TopicArgs;
use shared::domain::ids::{OrderId, ReturnId};
use shared::domain::money::Money;
use shared::domain::trace_context::TraceContext;
use shared::domain::transition::{self, Cause, Change, Locked};
use shared::runtime::killpoint::kill_point;
use shared::runtime::retry::full_jitter;
use sqlx::MySqlConnection;
use sqlx::mysql::MySqlPool;

use crate::PROGRAM;
use crate::attempt::Recorded;
use crate::claim::{sorted, trace};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::standing::{Backoff, Judgement, Standing};
use crate::store::{self, OrderLock};
use crate::verdict::{Finding, NotSettled, Settled};

/// Findings that wait are settled together, but a group holds its order locks for as long as it takes: about 0.2 s for
/// this many on two cores.
pub const MAX_GROUP: usize = 500;

const RETRY_BASE: Duration = Duration::from_millis(5);
const RETRY_CAP: Duration = Duration::from_secs(1);
/// A take-over or a claimed → sent of ours holds attempts for milliseconds.
const HELD_TRIES: u32 = 4;

/// A finding, and where it belongs.
#[derive(Debug, Clone)]
pub struct Settlement {
    pub order_id: OrderId,
    pub finding: Finding,
    /// Of the message that brought the attempt about, if one did.
    pub trace: Option<TraceContext>,
}

/// Writes settlements.
#[derive(Debug, Clone)]
pub struct Settler {
    pub pool: MySqlPool,
    pub topics: TopicArgs,
    pub backoff: Backoff,
    pub metrics: Metrics,
}

impl Settler {
    /// Settles a group; one result per settlement, in order. What others hold is left out of it. If the group fails for
    /// good, or somebody holds an attempt's row alone, it is settled one by one. Waits for the database for as long as
    /// it is away, and for no row.
    pub async fn settle(&self, group: Vec<Settlement>) -> Vec<Result<Settled, NotSettled>> {
        let size = u32::try_from(group.len()).unwrap_or(u32::MAX);
        self.metrics.settle_group.observe(f64::from(size));
        let error = match self.until_done(&group).await {
            Ok(settled) => return settled,
            Err(error) => error,
        };
        tracing::warn!(cause = ?error, attempts = group.len(), "a group cannot be settled together");
        let mut results = Vec::with_capacity(group.len());
        for settlement in &group {
            results.push(self.settle_alone(settlement).await);
        }
        results
    }

    async fn settle_alone(&self, settlement: &Settlement) -> Result<Settled, NotSettled> {
        match self.until_done(std::slice::from_ref(settlement)).await {
            Ok(settled) => settled.first().copied().unwrap_or(Err(NotSettled::Failed)),
            Err(error) if error.is_held() => Err(NotSettled::Held),
            Err(error) => {
                let id = settlement.finding.attempt;
                tracing::error!(cause = ?error, return.id = %id.return_id, "an attempt cannot be settled");
                self.metrics
                    .permanent_failures
                    .with_label_values(&["settle"])
                    .inc();
                Err(NotSettled::Failed)
            }
        }
    }

    /// Until it commits, fails for good or meets an attempt that somebody holds. No stop signal ends it: what it writes
    /// is known to the gateway, and the drain deadline gives up on the whole task.
    async fn until_done(
        &self,
        group: &[Settlement],
    ) -> Result<Vec<Result<Settled, NotSettled>>, Error> {
        let mut tries = 0;
        loop {
            match self.settle_once(group).await {
                Err(error) if error.is_transient() && !(error.is_held() && tries >= HELD_TRIES) => {
                    self.metrics
                        .transient_failures
                        .with_label_values(&["settle"])
                        .inc();
                    tracing::warn!(cause = ?error, tries, "a settlement is run again");
                    tokio::time::sleep(full_jitter(tries, RETRY_BASE, RETRY_CAP)).await;
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    async fn settle_once(
        &self,
        group: &[Settlement],
    ) -> Result<Vec<Result<Settled, NotSettled>>, Error> {
        let mut tx = self.pool.begin().await?;
        match self.write(&mut tx, group).await {
            Ok(settled) => {
                kill_point("consumer.before_settle_commit");
                tx.commit().await?;
                Ok(settled)
            }
            Err(error) => {
                // At once: a dropped transaction keeps its locks until the connection is used again.
                let _ = tx.rollback().await;
                Err(error)
            }
        }
    }

    async fn write(
        &self,
        tx: &mut MySqlConnection,
        group: &[Settlement],
    ) -> Result<Vec<Result<Settled, NotSettled>>, Error> {
        let order_ids = sorted(group.iter().map(|one| one.order_id));
        let orders = store::lock_orders(tx, &order_ids, OrderLock::Update).await?;
        let free = group
            .iter()
            .filter(|one| orders.contains_key(&one.order_id))
            .map(|one| one.finding.attempt.return_id);
        let mut locked = transition::lock_free(tx, &sorted(free)).await?;
        let return_ids: Vec<ReturnId> = locked.rows().iter().map(|row| row.id).collect();
        let attempts = store::lock_attempts(tx, &return_ids).await?;

        let mut books = Books::open(&locked, attempts, orders);
        let settled = group
            .iter()
            .map(|one| books.enter(one, &locked, self.backoff))
            .collect();

        store::update_attempts(tx, &books.changed_attempts(), locked.now).await?;
        store::add_refunds(tx, &books.paid()).await?;
        transition::apply(tx, &mut locked, &self.topics, &books.changes).await?;
        Ok(settled)
    }
}

/// The locked rows of a group, moved in memory.
struct Books {
    before: HashMap<ReturnId, Vec<Recorded>>,
    standings: BTreeMap<ReturnId, Standing>,
    orders_before: HashMap<OrderId, OrderFacts>,
    orders: BTreeMap<OrderId, OrderFacts>,
    changes: Vec<Change>,
}

impl Books {
    fn open(
        locked: &Locked,
        before: HashMap<ReturnId, Vec<Recorded>>,
        orders: HashMap<OrderId, OrderFacts>,
    ) -> Self {
        let standing = |row: &transition::LockedReturn| Standing {
            status: row.status,
            attempts: before.get(&row.id).cloned().unwrap_or_default(),
        };
        Self {
            standings: locked
                .rows()
                .iter()
                .map(|row| (row.id, standing(row)))
                .collect(),
            before,
            orders: orders.clone().into_iter().collect(),
            orders_before: orders,
            changes: Vec::new(),
        }
    }

    /// Judges one settlement on what those before it have left. An attempt has a return and an order (foreign keys), so
    /// what is not here is held.
    fn enter(
        &mut self,
        one: &Settlement,
        locked: &Locked,
        backoff: Backoff,
    ) -> Result<Settled, NotSettled> {
        let id = one.finding.attempt.return_id;
        let (row, standing) = locked
            .get(id)
            .zip(self.standings.get_mut(&id))
            .ok_or(NotSettled::Held)?;
        let order = self.orders.get_mut(&row.order_id).ok_or(NotSettled::Held)?;
        let Judgement { settled, change } =
            standing.judge(&one.finding, order, locked.now, backoff);
        if let Some((action, detail)) = change {
            self.changes.push(Change {
                return_id: id,
                action,
                cause: Cause {
                    actor: Actor::system(PROGRAM),
                    request_id: None,
                    trace: trace(one.trace.as_ref(), row),
                },
                detail,
            });
        }
        Ok(settled)
    }

    fn changed_attempts(&self) -> Vec<&Recorded> {
        let was = |row: &Recorded| {
            let rows = self.before.get(&row.id.return_id)?;
            rows.iter().find(|old| old.id == row.id)
        };
        self.standings
            .values()
            .flat_map(|standing| &standing.attempts)
            .filter(|row| was(row) != Some(row))
            .collect()
    }

    fn paid(&self) -> Vec<(OrderId, Money)> {
        let paid = |(id, order): (&OrderId, &OrderFacts)| {
            let before = self.orders_before.get(id)?;
            let added = order
                .refunded_amount
                .checked_sub(&before.refunded_amount)
                .ok()?;
            added.is_positive().then_some((*id, added))
        };
        self.orders.iter().filter_map(paid).collect()
    }
}
