//! Which process may send an attempt, as its row says: from claimed to sent, and giving back what was never called for.

use std::time::Duration;

use shared::domain::refund::AttemptId;
use sqlx::mysql::MySqlPool;
use uuid::Uuid;

use super::RefundWorker;
use crate::gateway::RefundGateway;
use crate::store;

/// After the drain deadline, so short.
const GIVE_BACK_DEADLINE: Duration = Duration::from_secs(2);

impl<G: RefundGateway> RefundWorker<G> {
    /// Frees the attempts that the gateway was never called for, so that other consumers take them over at once; returns
    /// how many were freed.
    pub async fn give_back(&self) -> usize {
        let waiting = self.open.waiting();
        if waiting.is_empty() {
            return 0;
        }
        let (pool, owner) = (self.pool.clone(), self.owner);
        let freed = tokio::spawn(async move {
            let mut conn = pool.acquire().await?;
            store::release(&mut conn, owner, &waiting).await
        });
        match tokio::time::timeout(GIVE_BACK_DEADLINE, freed).await {
            Ok(Ok(Ok(freed))) => {
                tracing::info!(attempts = freed, "attempts were given back");
                usize::try_from(freed).unwrap_or(usize::MAX)
            }
            failed => {
                tracing::warn!(
                    ?failed,
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
pub async fn mark_sent(pool: MySqlPool, owner: Uuid, ids: Vec<AttemptId>) -> Vec<bool> {
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    let marked = async {
        let mut conn = pool.acquire().await?;
        store::mark_sent(&mut conn, owner, &sorted).await
    };
    let marked = marked.await.unwrap_or_else(|error| {
        tracing::warn!(cause = ?error, "attempts were not marked as sent");
        Vec::new()
    });
    ids.iter().map(|id| marked.contains(id)).collect()
}
