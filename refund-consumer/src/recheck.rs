//! Looks paid refunds up again: a provider can take a refund back days later, and nobody else would learn of it.
//!
//! A task of its own with few calls at a time, so that approvals, retries and unclear attempts never wait for it. It rests
//! while the gateway accepts no calls or the process is busy. `shared::domain::refund` has the dates.

use std::sync::Arc;
use std::time::Duration;

use shared::runtime::clock::{Expiry, Moment};
use shared::runtime::db::Database;
use shared::runtime::tasks::{Outage, every};
use tokio_util::sync::CancellationToken;

use crate::attempt::{OwnedAttempt, SendState};
use crate::error::Error;
use crate::gateway::RefundGateway;
use crate::metrics::Metrics;
use crate::refund::RefundWorker;
use crate::store::{self, Due, TakeOver};

/// Calls at the same time: an eighth of the default of GATEWAY_PARALLEL_CALLS. At 100 ms a call that is 80 look-ups a
/// second, enough for a million refunds a day.
const AT_ONCE: u32 = 8;
/// For one statement.
const DEADLINE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Rechecker<G> {
    pub db: Database,
    pub worker: Arc<RefundWorker<G>>,
    pub interval: Duration,
    pub metrics: Metrics,
}

impl<G: RefundGateway> Rechecker<G> {
    /// Looks up until `stop`. Not cancel-safe: run it in a task of its own.
    pub async fn run(self, stop: CancellationToken) {
        let (mut passes, mut outage) = (
            every(self.interval, &stop),
            Outage::new("the scan for paid refunds"),
        );
        while passes.next().await {
            match self.pass(&stop).await {
                Ok(is_full) => {
                    outage.ended();
                    if is_full {
                        passes.pause_next(Duration::ZERO);
                    }
                }
                Err(error) => {
                    self.metrics
                        .transient_failures
                        .with_label_values(&["recheck"])
                        .inc();
                    outage.failed(&error);
                }
            }
        }
    }

    /// Returns whether more may be due.
    async fn pass(&self, stop: &CancellationToken) -> Result<bool, Error> {
        if self.worker.room_for_messages() == 0 {
            return Ok(false);
        }
        let taken = self.take().await?;
        let is_full = taken.len() == AT_ONCE as usize;
        let carried = self.worker.carry_all(taken);
        stop.run_until_cancelled(carried).await;
        Ok(is_full)
    }

    async fn take(&self) -> Result<Vec<OwnedAttempt>, Error> {
        let asked = Moment::now();
        let (gateway, owner) = (self.worker.gateway.name().clone(), self.worker.owner);
        let call_deadline = self.worker.call_deadline;
        let taken = self.db.run("take_rechecks", DEADLINE, move |conn| {
            Box::pin(async move {
                let (now, mut due) = store::due_rechecks(conn, gateway.as_str(), AT_ONCE).await?;
                let Some(now) = now else {
                    return Ok::<_, Error>(Vec::new());
                };
                let by = TakeOver {
                    owner,
                    gateway,
                    // Nothing is sent.
                    native_idempotency: false,
                    now,
                    call_deadline: now + call_deadline,
                };
                let taken = store::take_rechecks(conn, &due, &by).await?;
                due.retain(|due| taken.contains(&due.attempt.id));
                let own = |due| owned(due, &by, Expiry::new(asked, call_deadline));
                Ok(due.into_iter().filter_map(own).collect())
            })
        });
        taken.await
    }
}

/// `None` for an attempt without the provider's reference: people marked it as paid.
fn owned(Due { attempt, order_id }: Due, by: &TakeOver, deadline: Expiry) -> Option<OwnedAttempt> {
    Some(OwnedAttempt {
        id: attempt.id,
        order_id,
        sent: SendState::Paid {
            gateway_ref: attempt.gateway_ref?,
        },
        key: attempt.key,
        amount: attempt.amount,
        owned_until: by.call_deadline,
        deadline,
        trace: None,
    })
}
