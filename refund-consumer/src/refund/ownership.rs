//! Which process may send an attempt, as its row says: from claimed to sent, and giving back what was never called for.

use std::time::Duration;

use shared::domain::refund::AttemptId;
use shared::runtime::db::Database;
use shared::runtime::tasks::chain;
use uuid::Uuid;

use super::RefundWorker;
use crate::gateway::RefundGateway;
use crate::store;

const MARK_DEADLINE: Duration = Duration::from_secs(5);
/// After the drain deadline, so short.
const GIVE_BACK_DEADLINE: Duration = Duration::from_secs(2);

impl<G: RefundGateway> RefundWorker<G> {
    /// Frees the attempts that the gateway was never called for, so that other consumers take them over at once; returns
    /// how many were freed.
    pub async fn give_back(&self) -> usize {
        let (owner, waiting) = (self.owner, self.open.waiting());
        if waiting.is_empty() {
            return 0;
        }
        let freed = self.db.run("release", GIVE_BACK_DEADLINE, move |conn| {
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

    /// Whether the attempt is marked as sent and still ours. Only then may a gateway without keys be called.
    pub(super) async fn is_marked_sent(&self, id: AttemptId) -> bool {
        self.mark_sent.write(id).await.unwrap_or(false)
    }
}

/// Marks a batch of claimed attempts as sent; returns for each, in order, whether it was still ours. After an error none
/// of them is sent: they are due again at their deadline.
pub async fn mark_sent(db: Database, owner: Uuid, ids: Vec<AttemptId>) -> Vec<bool> {
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    let marked = db.run("mark_sent", MARK_DEADLINE, move |conn| {
        Box::pin(async move { store::mark_sent(conn, owner, &sorted).await })
    });
    let marked = marked.await.unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "attempts were not marked as sent");
        Vec::new()
    });
    ids.iter().map(|id| marked.contains(id)).collect()
}
