//! Which process may send an attempt, as its row says: from claimed to sent, and giving back what was never called for.

use std::time::Duration;

use shared::domain::refund::AttemptId;
use shared::runtime::db::Database;
use shared::runtime::tasks::{Rarely, chain};
use uuid::Uuid;

use super::RefundWorker;
use crate::gateway::RefundGateway;
use crate::store;

const MARK_DEADLINE: Duration = Duration::from_secs(5);
/// For the wait for a connection, and again for the statement. After the drain deadline, so short.
const GIVE_BACK_DEADLINE: Duration = Duration::from_secs(1);

/// What became of marking an attempt as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// It is ours: the gateway may be called.
    Ours,
    /// Another process has taken it over.
    TakenOver,
    /// MySQL did not confirm it.
    Unknown,
}

impl<G: RefundGateway> RefundWorker<G> {
    /// Frees the attempts that the gateway was never called for, so that other consumers take them over at once; returns
    /// how many were freed.
    pub async fn give_back(&self) -> usize {
        let (owner, waiting) = (self.owner, self.open.waiting());
        if waiting.is_empty() {
            return 0;
        }
        let db = self.db.clone().acquire_timeout(GIVE_BACK_DEADLINE);
        let freed = db.run("release", GIVE_BACK_DEADLINE, move |conn| {
            Box::pin(async move { store::release(conn, owner, &waiting).await })
        });
        match freed.await {
            Ok(freed) => {
                tracing::info!(attempts = freed, "attempts were given back");
                usize::try_from(freed).unwrap_or(usize::MAX)
            }
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "attempts were not given back; they are due at their deadline"
                );
                0
            }
        }
    }

    /// Marks the attempt as sent. Only if it is [`Marked::Ours`] may a gateway without keys be called.
    pub(super) async fn mark_sent(&self, id: AttemptId) -> Marked {
        self.mark_sent.write(id).await.unwrap_or(Marked::Unknown)
    }
}

/// Marks a batch of claimed attempts as sent; returns one result for each, in order.
pub async fn mark_sent(db: Database, owner: Uuid, ids: Vec<AttemptId>) -> Vec<Marked> {
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    let marked = db.run("mark_sent", MARK_DEADLINE, move |conn| {
        Box::pin(async move { store::mark_sent(conn, owner, &sorted).await })
    });
    let ours = match marked.await {
        Ok(ours) => ours,
        Err(error) => {
            static NOT_MARKED: Rarely = Rarely::new();
            if let Some(left_out) = NOT_MARKED.due() {
                let error = chain(&error);
                tracing::warn!(error, left_out, "attempts were not marked as sent");
            }
            return vec![Marked::Unknown; ids.len()];
        }
    };
    let marked = |id| {
        if ours.contains(id) {
            Marked::Ours
        } else {
            Marked::TakenOver
        }
    };
    ids.iter().map(marked).collect()
}
