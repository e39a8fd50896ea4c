//! Claims returns that wait: approved ones, and new ones whose message is late.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use shared::domain::ids::ReturnId;
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, PAGE, Pass, Reconciler};
use crate::error::Error;
use crate::gateway::RefundGateway;
use crate::store::{self, Page, Waiting};

/// A return that could not be claimed is tried again after this time; until then it does not fill the log.
const SIDELINE: Duration = Duration::from_secs(60);
/// The same for a return that another transaction holds: it is free again soon.
const SIDELINE_HELD: Duration = Duration::from_secs(5);

impl<G: RefundGateway> Reconciler<G> {
    /// Claims waiting returns, page by page, as long as there is room.
    pub(super) async fn waiting(
        &mut self,
        waiting: Waiting,
        stop: &CancellationToken,
    ) -> Result<Pass, Error> {
        let now = Instant::now();
        self.sidelined.retain(|_, until| *until > now);
        let mut after = Page::from(self.floors.of(waiting.range()));
        while !stop.is_cancelled() {
            let room = self.room().min(PAGE);
            if room == 0 {
                return Ok(Pass::NoRoom);
            }
            let page = self.page(waiting, after, room).await?;
            let Some(last) = page.last() else { break };
            after = *last;
            let full = page.len() == room;
            self.claim(waiting, page).await?;
            if !full {
                break;
            }
        }
        Ok(Pass::Whole)
    }

    async fn claim(&mut self, waiting: Waiting, page: Vec<Page>) -> Result<(), Error> {
        let found: Vec<ReturnId> = page
            .into_iter()
            .map(|row| row.id)
            .filter(|id| !self.sidelined.contains_key(id))
            .collect();
        self.count(waiting.kind(), found.len());
        let (worker, taken) = (&self.worker, &mut self.taken);
        let mut claimed = HashSet::new();
        let held = self
            .claimer
            .claim_found(&found, |attempts| {
                claimed.extend(attempts.iter().map(|attempt| attempt.id.return_id));
                taken.extend(attempts.iter().map(|attempt| attempt.id));
                worker.take(attempts);
            })
            .await?;
        self.sideline(&found, &claimed, &held);
        Ok(())
    }

    /// A found return without an attempt was rejected, taken by another consumer, or cannot be claimed: no hurry.
    fn sideline(&mut self, found: &[ReturnId], claimed: &HashSet<ReturnId>, held: &[ReturnId]) {
        let now = Instant::now();
        let until = |id: &ReturnId| {
            let is_held = held.binary_search(id).is_ok();
            now + if is_held { SIDELINE_HELD } else { SIDELINE }
        };
        let unclaimed = found.iter().filter(|id| !claimed.contains(id));
        self.sidelined.extend(unclaimed.map(|id| (*id, until(id))));
    }

    async fn page(&self, waiting: Waiting, after: Page, rows: usize) -> Result<Vec<Page>, Error> {
        let limit = u32::try_from(rows).unwrap_or(u32::MAX);
        let page = self.db.run("waiting_returns", DEADLINE, move |conn| {
            Box::pin(store::waiting_returns(conn, waiting, after, limit))
        });
        page.await
    }
}
