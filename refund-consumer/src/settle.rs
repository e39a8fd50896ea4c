//! Outcome reports in, rows out: many outcomes in one transaction.
//!
//! Lock order: orders (for update), returns, attempts. A success is written whichever process reports it. The transaction
//! may run several times; after a lost COMMIT the second run finds what the first one wrote.

mod batch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shared::domain::eligibility::OrderFacts;
use shared::domain::event::TopicArgs;
use shared::domain::ids::{OrderId, ReturnId};
use shared::domain::refund::{
    IfHeld, Outcome, OutcomeReport, Pauses, Settled, lock_attempts, update_attempts,
};
use shared::domain::transition;
use shared::runtime::db::Database;
use shared::runtime::killpoint::kill_point;
use shared::runtime::tasks::{Backoff, chain};
use shared::runtime::trace::{BatchSpan, Span, names};
use sqlx::MySqlConnection;

use crate::attempt::NotSettled;
use crate::claim::sorted;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::{self, OrderLock, expect_rows};
use crate::transact::Transaction;
use batch::SettlementBatch;

/// Waiting reports are settled together, but a batch holds its order locks while it is written: about 0.2 s for this many
/// on two cores.
pub const MAX_BATCH: usize = 500;

/// Taking over and marking as sent hold attempts for milliseconds.
const HELD_TRIES: u32 = 4;

/// A report, and where it belongs.
#[derive(Debug, Clone)]
pub struct Settlement {
    pub order_id: OrderId,
    pub report: OutcomeReport,
    /// Of the attempt: what the report changes is written under it.
    pub span: Span,
}

/// How long an open attempt waits until it is looked up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookUpBackoff {
    pub base: Duration,
    pub cap: Duration,
}

/// For an attempt that was not sent.
const UNSENT: LookUpBackoff = LookUpBackoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
};

impl LookUpBackoff {
    /// Between one and two times the base at first, doubling with every look-up.
    fn pause(self, look_ups: u32) -> Duration {
        let jitter = Backoff {
            base: self.base,
            cap: self.cap - self.base,
        };
        self.base + jitter.pause(look_ups)
    }

    /// The shorter of both.
    fn at_most(self, other: Self) -> Self {
        Self {
            base: self.base.min(other.base),
            cap: self.cap.min(other.cap),
        }
    }
}

/// What a transaction wrote; observed only after its commit.
#[derive(Debug)]
struct Written {
    /// In the order of the settlements.
    settled: Vec<Result<Settled, NotSettled>>,
    /// How long after its filing each return was refunded.
    refunded_after: Vec<Duration>,
}

/// Writes settlements.
#[derive(Debug, Clone)]
pub struct Settler {
    pub db: Database,
    pub topics: TopicArgs,
    pub backoff: LookUpBackoff,
    pub metrics: Metrics,
}

impl Settler {
    /// Settles a batch; returns one result per settlement, in order. Rows that another transaction holds are left out. If
    /// the batch fails for good, or another transaction holds an attempt's row alone, it is settled one by one. Waits
    /// for the database for as long as it is away, and for no row.
    pub async fn settle(
        self: &Arc<Self>,
        batch: Vec<Settlement>,
    ) -> Vec<Result<Settled, NotSettled>> {
        let batch: Arc<[Settlement]> = batch.into();
        let size = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        self.metrics.gateway.settle_group.observe(f64::from(size));
        let error = match self.until_done(Arc::clone(&batch)).await {
            Ok(settled) => return settled,
            Err(error) => error,
        };
        tracing::warn!(
            error = chain(&error),
            attempts = batch.len(),
            "a batch cannot be settled together"
        );
        let mut results = Vec::with_capacity(batch.len());
        for settlement in batch.iter() {
            results.push(self.settle_alone(settlement).await);
        }
        results
    }

    async fn settle_alone(
        self: &Arc<Self>,
        settlement: &Settlement,
    ) -> Result<Settled, NotSettled> {
        match self.until_done(Arc::new([settlement.clone()])).await {
            Ok(settled) => settled.first().copied().unwrap_or(Err(NotSettled::Failed)),
            Err(error) if error.is_held() => Err(NotSettled::Held),
            Err(error) => {
                let id = settlement.report.attempt;
                tracing::error!(error = chain(&error), return.id = %id.return_id, "an attempt cannot be settled");
                self.metrics
                    .work
                    .permanent_failures
                    .with_label_values(&["settle"])
                    .inc();
                Err(NotSettled::Failed)
            }
        }
    }

    /// Until it commits, fails for good or meets an attempt that another transaction holds. No stop signal ends it: the
    /// gateway knows what it writes, and the drain deadline gives up the whole task.
    async fn until_done(
        self: &Arc<Self>,
        settlements: Arc<[Settlement]>,
    ) -> Result<Vec<Result<Settled, NotSettled>>, Error> {
        let transaction = Transaction {
            db: &self.db,
            name: "settle",
            failures: &self
                .metrics
                .work
                .transient_failures
                .with_label_values(&["settle"]),
        };
        let settler = Arc::clone(self);
        let held = |error: &Error, tries| error.is_held() && tries >= HELD_TRIES;
        let spans = settlements.iter().map(|one| &one.span);
        let together = BatchSpan::of_spans("settle.batch", names::BATCH_SIZE, spans);
        let written = transaction.until_committed(held, move |tx| {
            let (settler, settlements) = (Arc::clone(&settler), Arc::clone(&settlements));
            Box::pin(async move { settler.write(tx, &settlements).await })
        });
        let written = together.scope_of_statement(written).await?;
        for after in written.refunded_after {
            self.metrics.stages.refunded(after);
        }
        Ok(written.settled)
    }

    async fn write(
        &self,
        tx: &mut MySqlConnection,
        settlements: &[Settlement],
    ) -> Result<Written, Error> {
        let order_ids = sorted(settlements.iter().map(|one| one.order_id));
        let orders = store::lock_orders(tx, &order_ids, OrderLock::Update).await?;
        let free = settlements
            .iter()
            .filter(|one| orders.contains_key(&one.order_id))
            .map(|one| one.report.attempt.return_id);
        let mut locked = transition::lock_free(tx, &sorted(free)).await?;
        let return_ids: Vec<ReturnId> = locked.rows().iter().map(|row| row.id).collect();
        let attempts = lock_attempts(tx, &return_ids, IfHeld::Fail).await?;

        let open_orders = self.open_orders(tx, settlements, &orders).await?;
        let mut batch = SettlementBatch::new(&locked, attempts, orders, open_orders);
        let settled = self.apply(&mut batch, settlements, &locked);

        let changed = batch.changed_attempts();
        let wrote = update_attempts(tx, &changed, locked.now).await?;
        expect_rows("refunds", changed.len(), wrote)?;
        transition::apply(tx, &mut locked, &self.topics, &batch.changes).await?;
        kill_point("consumer.before_settle_commit");
        Ok(Written {
            settled,
            refunded_after: batch.refunded_after,
        })
    }

    /// The orders of reversed refunds that have another open return. No filing can change that while they are locked.
    async fn open_orders(
        &self,
        tx: &mut MySqlConnection,
        settlements: &[Settlement],
        locked: &HashMap<OrderId, OrderFacts>,
    ) -> Result<Vec<OrderId>, Error> {
        let reversed = settlements
            .iter()
            .filter(|one| matches!(one.report.outcome, Outcome::Reversed { .. }))
            .map(|one| one.order_id)
            .filter(|order| locked.contains_key(order));
        store::orders_with_open_return(tx, &sorted(reversed)).await
    }

    fn apply(
        &self,
        batch: &mut SettlementBatch,
        settlements: &[Settlement],
        locked: &transition::Locked,
    ) -> Vec<Result<Settled, NotSettled>> {
        let unsent = self.backoff.at_most(UNSENT);
        let pauses = Pauses {
            look_up: &|look_ups| self.backoff.pause(look_ups),
            unsent: &|look_ups| unsent.pause(look_ups),
        };
        let settle = |one| batch.settle(one, locked, pauses);
        settlements.iter().map(settle).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: LookUpBackoff = LookUpBackoff {
        base: Duration::from_secs(30),
        cap: Duration::from_secs(3_600),
    };

    #[test]
    fn look_ups_become_rarer_up_to_a_cap() {
        for look_ups in [0, 1, 5, 20, u32::MAX] {
            assert!(BACKOFF.pause(look_ups) >= BACKOFF.base, "{look_ups}");
            assert!(BACKOFF.pause(look_ups) <= BACKOFF.cap, "{look_ups}");
        }
        assert!(BACKOFF.pause(0) <= BACKOFF.base * 2);
    }

    /// No provider knows it, so there is nothing to wait for.
    #[test]
    fn an_attempt_that_was_not_sent_is_tried_again_soon() {
        assert_eq!(BACKOFF.at_most(UNSENT), UNSENT);
        let quick = LookUpBackoff {
            base: Duration::from_millis(50),
            cap: Duration::from_millis(100),
        };
        assert_eq!(quick.at_most(UNSENT), quick);
    }
}
