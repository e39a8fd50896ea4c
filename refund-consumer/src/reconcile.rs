//! Finds the work that no message brings: lost messages, approvals, retries, unclear outcomes, attempts whose owner died.
//!
//! Scans by index and hands the rows to the same claim and the same refund worker. Any number of consumers may run it: a
//! claim decides on locked rows, and one conditional UPDATE decides which process takes an attempt over.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::domain::ids::ReturnId;
use shared::domain::refund::{Attempt, AttemptState};
use shared::runtime::db::Database;
use shared::runtime::tasks::{Backoff, Outage, every};
use tokio_util::sync::CancellationToken;

use crate::attempt::{OwnedAttempt, SendState};
use crate::claim::Claimer;
use crate::error::Error;
use crate::gateway::RefundGateway;
use crate::metrics::Metrics;
use crate::refund::RefundWorker;
use crate::store::{self, Due, DueKind, Page, TakeOver, Waiting};

/// Rows per statement.
const PAGE: u32 = 100;
/// A return that could not be claimed is tried again after this time; until then it does not fill the log.
const SIDELINE: Duration = Duration::from_secs(60);
/// The same for a return that another transaction holds: it is free again soon.
const SIDELINE_HELD: Duration = Duration::from_secs(5);
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// For one statement.
const DEADLINE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Reconciler<G> {
    pub db: Database,
    pub claimer: Arc<Claimer>,
    pub worker: Arc<RefundWorker<G>>,
    pub interval: Duration,
    pub initiated_grace_secs: u32,
    /// How long the gateway honors a key.
    pub window: Duration,
    pub metrics: Metrics,
    pub sidelined: HashMap<ReturnId, Instant>,
}

impl<G: RefundGateway> Reconciler<G> {
    /// Scans until `stop`. Not cancel-safe: run it in a task of its own.
    pub async fn run(mut self, stop: CancellationToken) {
        let (mut passes, mut outage) = (every(self.interval, &stop), Outage::new("the scan"));
        let retry = Backoff {
            base: self.interval,
            cap: BACKOFF_CAP,
        };
        let mut failures = 0;
        while passes.next().await {
            match self.pass(&stop).await {
                Ok(()) => {
                    failures = 0;
                    outage.ended();
                    // Consumers that started together should not scan together.
                    let jitter = Backoff {
                        cap: self.interval,
                        ..retry
                    };
                    passes.pause_next(self.interval / 2 + jitter.pause(0));
                }
                Err(error) => {
                    failures += 1;
                    self.metrics
                        .transient_failures
                        .with_label_values(&["reconcile"])
                        .inc();
                    outage.failed(&error);
                    passes.pause_next(self.interval + retry.pause(failures));
                }
            }
        }
    }

    async fn pass(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let now = Instant::now();
        self.sidelined.retain(|_, until| *until > now);
        // First the attempts that may have paid, last those that the provider settles in its own time: neither a backlog
        // nor thousands of pending refunds may starve the rest.
        self.due(DueKind::Unclear, stop).await?;
        self.due(DueKind::Claimed, stop).await?;
        for reviewed in [false, true] {
            self.waiting(Waiting::Approved { reviewed }, "approved", stop)
                .await?;
        }
        let grace_secs = self.initiated_grace_secs;
        self.waiting(Waiting::Initiated { grace_secs }, "initiated", stop)
            .await?;
        self.due(DueKind::Pending, stop).await
    }

    /// New returns count as a backlog, whether a message or a scan names them.
    fn room_for(&self, waiting: Waiting) -> usize {
        match waiting {
            Waiting::Initiated { .. } => self.worker.room_for_messages(),
            Waiting::Approved { .. } => self.worker.room(),
        }
    }

    /// Claims waiting returns, page by page, as long as there is room.
    async fn waiting(
        &mut self,
        waiting: Waiting,
        kind: &str,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let mut after = Page::FIRST;
        while self.room_for(waiting) > 0 && !stop.is_cancelled() {
            let page = self.page(waiting, after).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = *last;
            let full = page.len() == PAGE as usize;
            let found: Vec<ReturnId> = page
                .into_iter()
                .map(|row| row.id)
                .filter(|id| !self.sidelined.contains_key(id))
                .collect();
            self.count(kind, found.len());
            let (worker, mut claimed) = (&self.worker, HashSet::new());
            let hand_over = |attempts: Vec<OwnedAttempt>| {
                claimed.extend(attempts.iter().map(|attempt| attempt.id.return_id));
                worker.take(attempts);
            };
            let held = self.claimer.claim_found(&found, hand_over).await?;
            self.sideline(&found, &claimed, &held);
            if !full {
                return Ok(());
            }
        }
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

    /// Takes over attempts that are due, as long as there is room.
    async fn due(&mut self, kind: DueKind, stop: &CancellationToken) -> Result<(), Error> {
        while !stop.is_cancelled() {
            let room = self.worker.room().min(PAGE as usize);
            if room == 0 {
                return Ok(());
            }
            let began = Instant::now();
            let gateway = self.worker.gateway.name();
            // Our own attempts may be due too, for example while another transaction holds their rows. They must not hide
            // the others.
            let limit = room + self.worker.open.count();
            let limit = u32::try_from(limit).unwrap_or(u32::MAX);
            let due = self.db.run("due_attempts", DEADLINE, move |conn| {
                Box::pin(store::due_attempts(conn, gateway, kind, limit))
            });
            let (now, mut due) = due.await?;
            due.retain(|due| !self.worker.open.contains(due.attempt.id));
            due.truncate(room);
            let full = due.len() == room;
            let Some(now) = now.filter(|_| !due.is_empty()) else {
                return Ok(());
            };
            let taken = self.take_over(due, now, began).await?;
            self.count("due", taken.len());
            let progressed = !taken.is_empty();
            self.worker.take(taken);
            if !full || !progressed {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn take_over(
        &self,
        mut due: Vec<Due>,
        now: time::OffsetDateTime,
        began: Instant,
    ) -> Result<Vec<OwnedAttempt>, Error> {
        let by = TakeOver {
            owner: self.claimer.owner,
            gateway: self.claimer.gateway,
            native_idempotency: self.claimer.native_idempotency,
            now,
            call_deadline: now + self.claimer.call_deadline,
        };
        let taken = self.db.run("take_over", DEADLINE, move |conn| {
            Box::pin(async move {
                let taken = store::take_over(conn, &due, &by).await?;
                due.retain(|due| taken.contains(&due.attempt.id));
                Ok::<_, Error>(due)
            })
        });
        let taken = taken.await?.into_iter();
        Ok(taken
            .map(|Due { attempt, order_id }| OwnedAttempt {
                id: attempt.id,
                order_id,
                sent: send_state(&attempt, &by, self.window),
                key: attempt.key,
                amount: attempt.amount,
                owned_until: by.call_deadline,
                deadline: began + self.claimer.call_deadline,
                trace: None,
            })
            .collect())
    }

    async fn page(&self, waiting: Waiting, after: Page) -> Result<Vec<Page>, Error> {
        let page = self.db.run("waiting_returns", DEADLINE, move |conn| {
            Box::pin(store::waiting_returns(conn, waiting, after, PAGE))
        });
        page.await
    }

    fn count(&self, kind: &str, found: usize) {
        let found = u64::try_from(found).unwrap_or(u64::MAX);
        self.metrics
            .found_waiting
            .with_label_values(&[kind])
            .inc_by(found);
    }
}

/// What earlier calls may have done at the gateway, as of the take-over.
fn send_state(due: &Attempt, by: &TakeOver, window: Duration) -> SendState {
    let may_resend = || {
        by.native_idempotency
            && due.sent_with_key
            && due
                .first_sent_at
                .is_some_and(|first| by.call_deadline < first + window)
    };
    match (due.state, &due.gateway_ref) {
        (AttemptState::Pending, Some(gateway_ref)) => SendState::Pending {
            gateway_ref: gateway_ref.clone(),
        },
        (AttemptState::Claimed, _) if due.first_sent_at.is_none() => SendState::Unsent,
        _ => SendState::MaybeSent {
            may_resend: may_resend(),
            checks: due.checks,
        },
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::money::{Currency, Money};
    use shared::domain::refund::{AttemptId, ProviderKey};
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    const NOW: time::OffsetDateTime = datetime!(2026-11-23 12:00 UTC);
    const WINDOW: Duration = Duration::from_secs(24 * 3600);

    /// Sent with its key, if at all.
    fn due(state: AttemptState, sent_hours_ago: Option<i64>, gateway_ref: Option<&str>) -> Attempt {
        Attempt {
            id: AttemptId {
                return_id: ReturnId(1),
                number: 1,
            },
            key: ProviderKey("k".to_owned()),
            amount: Money::new(1.into(), Currency::parse("EUR").expect("a code")),
            state,
            owner: None,
            call_deadline: None,
            first_sent_at: sent_hours_ago.map(|hours| NOW - time::Duration::hours(hours)),
            sent_with_key: true,
            next_check_at: NOW,
            checks: 3,
            gateway: None,
            gateway_ref: gateway_ref.map(str::to_owned),
            last_error: None,
            created_at: NOW,
            updated_at: NOW,
        }
    }

    fn by(native_idempotency: bool) -> TakeOver {
        TakeOver {
            owner: Uuid::nil(),
            gateway: "fake",
            native_idempotency,
            now: NOW,
            call_deadline: NOW + Duration::from_secs(30),
        }
    }

    #[test]
    fn p5_only_a_key_within_its_lifetime_may_go_out_again() {
        let maybe = |may_resend| SendState::MaybeSent {
            may_resend,
            checks: 3,
        };
        let pending = SendState::Pending {
            gateway_ref: "r".to_owned(),
        };
        use AttemptState as S;
        for (row, keys, expected) in [
            (due(S::Claimed, None, None), true, SendState::Unsent),
            (due(S::Claimed, None, None), false, SendState::Unsent),
            (due(S::Claimed, Some(1), None), true, maybe(true)),
            (due(S::Unknown, Some(23), None), true, maybe(true)),
            (due(S::Unknown, Some(24), None), true, maybe(false)),
            (due(S::Unknown, None, None), true, maybe(false)),
            (due(S::Sent, Some(1), None), false, maybe(false)),
            (due(S::Unknown, Some(1), None), false, maybe(false)),
            (due(S::Pending, Some(1), Some("r")), true, pending.clone()),
        ] {
            assert_eq!(send_state(&row, &by(keys), WINDOW), expected, "{row:?}");
        }
        let mut without_key = due(S::Unknown, Some(1), None);
        without_key.sent_with_key = false;
        assert_eq!(
            send_state(&without_key, &by(true), WINDOW),
            maybe(false),
            "a gateway that never saw the key would take it for a new call"
        );
        let mut edge = due(S::Unknown, Some(24), None);
        edge.first_sent_at = Some(NOW - WINDOW + Duration::from_secs(30));
        assert_eq!(
            send_state(&edge, &by(true), WINDOW),
            maybe(false),
            "the call could end after the window"
        );
    }
}
