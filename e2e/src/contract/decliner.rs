//! Replaces the consumer and a gateway that declines every refund of one customer. Returns of that customer end in
//! `refund_failed` and can be retried.

use std::time::Duration;

use serde_json::Map;
use shared::domain::actor::Actor;
use shared::domain::event::TopicArgs;
use shared::domain::ids::{CustomerId, ReturnId};
use shared::domain::status::Action;
use shared::domain::trace_context::TraceContext;
use shared::domain::transition::{self, Cause, Change};
use sqlx::mysql::MySqlPool;
use tokio::task::JoinHandle;

use crate::system::System;

/// The period of its queries.
const EVERY: Duration = Duration::from_millis(50);
/// The actions up to a failed refund.
const STEPS: [Action; 3] = [Action::Approve, Action::Claim, Action::Decline];

/// Stops when dropped.
#[derive(Debug)]
pub(super) struct Decliner {
    task: JoinHandle<()>,
}

impl Decliner {
    pub(super) fn start(system: &System, unlucky: CustomerId) -> Self {
        let (pool, topics) = (system.db.pool.clone(), system.topic_args());
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = decline(&pool, &topics, unlucky).await {
                    // The next round may succeed; the requests that wait have deadlines.
                    eprintln!("contract: could not decline: {error:#}");
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { task }
    }
}

impl Drop for Decliner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn decline(pool: &MySqlPool, topics: &TopicArgs, unlucky: CustomerId) -> anyhow::Result<()> {
    let ids: Vec<ReturnId> = sqlx::query_scalar(
        "SELECT id FROM returns WHERE customer_id = ? AND status = 'initiated' LIMIT 100",
    )
    .bind(unlucky)
    .fetch_all(pool)
    .await?;
    if ids.is_empty() {
        return Ok(());
    }
    let mut tx = pool.begin().await?;
    let mut locked = transition::lock(&mut tx, &ids).await?;
    let changes: Vec<Change> = ids
        .iter()
        .flat_map(|id| STEPS.map(|step| change(*id, step)))
        .collect();
    transition::apply(&mut tx, &mut locked, topics, &changes).await?;
    for row in locked.rows() {
        sqlx::query(
            "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, checks, \
             created_at, updated_at) VALUES (?, 1, CONCAT('first-', ?), ?, ?, 'declined', UTC_TIMESTAMP(6), 0, \
             UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
        )
        .bind(row.id)
        .bind(row.id)
        .bind(row.refund_amount.amount)
        .bind(row.refund_amount.currency.as_str())
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(())
}

fn change(return_id: ReturnId, action: Action) -> Change {
    Change {
        return_id,
        action,
        cause: Cause {
            actor: Actor::system("contract"),
            request_id: None,
            trace: TraceContext::new_root(),
        },
        detail: Map::new(),
    }
}
