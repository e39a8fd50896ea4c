//! One attempt from intent to outcome: ask the gateway, settle what was learned.
//!
//! Must stay true: a call starts only before the attempt's deadline, so before anyone may take it over; a call whose
//! end is not known is never taken for "not paid"; what may have been sent is looked up before it is sent again, and
//! sent again only with the same key within the key's lifetime. The attempt's row, not this task, is what survives:
//! a task may end anywhere, and the row is due again at its deadline.

mod answer;
mod earlier;
mod ownership;

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::runtime::killpoint::kill_point;
use shared::runtime::retry::full_jitter;
use sqlx::mysql::MySqlPool;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use ownership::mark_sent;

use crate::attempt::{Attempt, AttemptId, IdempotencyKey, Known};
use crate::gateway::{Answer, CallFailed, RefundGateway, RefundRequest};
use crate::grouped::Grouped;
use crate::metrics::Metrics;
use crate::open::OpenAttempts;
use crate::settle::Settlement;
use crate::verdict::{Finding, NotSettled, Settled, Verdict};

/// A gateway may need a moment until a refund can be found; this many look-ups, with back-off, allow for it.
const LOOK_UPS_BEFORE_PARKING: i32 = 5;
/// A group of ours holds its rows for up to about 0.2 s, a forgotten client for as long as it likes.
const HELD_BASE: Duration = Duration::from_millis(20);
const HELD_CAP: Duration = Duration::from_secs(5);
const HELD_STOPPING: Duration = Duration::from_millis(100);
/// After so many tries, some five seconds, the log says so.
const HELD_FOR_LONG: u32 = 10;

/// Carries attempts, many at a time.
#[derive(Debug)]
pub struct Cashier<G> {
    pub gateway: G,
    pub pool: MySqlPool,
    pub owner: Uuid,
    pub open: OpenAttempts,
    pub max_open: usize,
    /// From the claim to the end of the call.
    pub call_deadline: Duration,
    /// Gateway calls at the same time.
    pub turns: Semaphore,
    pub settler: Grouped<Settlement, Result<Settled, NotSettled>>,
    /// Claimed to sent, for gateways without keys; answers whether the attempt was still ours.
    pub sent: Grouped<AttemptId, bool>,
    pub metrics: Metrics,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

impl<G: RefundGateway> Cashier<G> {
    /// Carries each attempt to its outcome, in a task of its own.
    pub fn take(self: &Arc<Self>, attempts: Vec<Attempt>) {
        for attempt in attempts {
            // Taken over by ourselves meanwhile, because the claim took so long: that one is carried already.
            if !self.open.add(attempt.id) {
                continue;
            }
            let cashier = Arc::clone(self);
            self.tasks
                .spawn(async move { cashier.carry(attempt).await });
        }
    }

    /// How many more attempts this process should take.
    pub fn room(&self) -> usize {
        self.max_open.saturating_sub(self.open.count())
    }

    /// The same for new messages: a backlog in Kafka must not starve approvals, retries and unclear attempts.
    /// While the gateway lets no call in there is none: what is claimed then only waits, and is found again and again.
    pub fn room_for_messages(&self) -> usize {
        if self.gateway.lets_nobody_in() {
            return 0;
        }
        self.most_for_messages().saturating_sub(self.open.count())
    }

    /// How many attempts may be open for messages to be taken.
    pub fn most_for_messages(&self) -> usize {
        self.max_open - self.max_open / 4
    }

    async fn carry(&self, attempt: Attempt) {
        let Some(turn) = self.turn().await else {
            // Stopping: it stays among the waiting ones, which are given back at the end.
            return;
        };
        let _open = self.open.ask(attempt.id);
        let learned = if Instant::now() < self.latest_start(attempt.deadline) {
            self.learn(&attempt).await
        } else {
            self.metrics.expired_before_call.inc();
            Some(self.too_late(&attempt))
        };
        drop(turn);
        if let Some(finding) = learned {
            self.settle(&attempt, finding).await;
        }
    }

    /// A call that begins in the second half of its time would be cut off by the deadline rather than answered, and
    /// end unknown.
    fn latest_start(&self, deadline: Instant) -> Instant {
        deadline - self.call_deadline / 2
    }

    /// Its turn did not come in time: it is given up at once, for whoever has room.
    fn too_late(&self, attempt: &Attempt) -> Finding {
        const ERROR: &str = "no_turn";
        if attempt.known.is_unsent() {
            self.not_sent(attempt, ERROR)
        } else {
            let looked_up = false;
            self.finding(
                attempt,
                Verdict::StillOpen {
                    error: ERROR,
                    looked_up,
                },
            )
        }
    }

    fn not_sent(&self, attempt: &Attempt, error: &'static str) -> Finding {
        let verdict = Verdict::NotSent {
            error,
            never_sent: attempt.known.is_unsent(),
        };
        self.finding(attempt, verdict)
    }

    /// `None` once stopping, even if a turn is to be had: nothing new is called for then.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = self.stop.run_until_cancelled(self.turns.acquire()).await?;
        let turn = turn.expect("the semaphore is never closed");
        (!self.stop.is_cancelled()).then_some(turn)
    }

    /// What the gateway says about the attempt; `None` if it was taken over before it could be sent.
    async fn learn(&self, attempt: &Attempt) -> Option<Finding> {
        match &attempt.known {
            Known::Fresh => self.send(attempt).await,
            Known::Pending { gateway_ref } => Some(self.poll(attempt, gateway_ref).await),
            Known::Unsent | Known::MaybeSent { .. } => match self.look_up(attempt).await {
                Some(finding) => Some(finding),
                None => self.not_found(attempt).await,
            },
        }
    }

    async fn settle(&self, attempt: &Attempt, finding: Finding) {
        kill_point("consumer.before_settle");
        let settlement = Settlement {
            order_id: attempt.order_id,
            finding,
            trace: attempt.trace.clone(),
        };
        let settled = self.written(settlement).await;
        kill_point("consumer.after_settle");
        let result = settled.map_or_else(NotSettled::code, Settled::code);
        self.metrics.settlements.with_label_values(&[result]).inc();
        if let Ok(Settled::Parked | Settled::Disagreed | Settled::Stuck) = settled {
            tracing::error!(return.id = %attempt.id.return_id, attempt = attempt.id.number, result, "a person must look");
        }
    }

    /// What was learned is kept for as long as somebody holds the rows it belongs to: a provider without look-ups would
    /// not tell it again. Only the drain deadline ends that. Where nothing was learned, there is nothing to keep.
    async fn written(&self, settlement: Settlement) -> Result<Settled, NotSettled> {
        let nothing_learned = matches!(settlement.finding.verdict, Verdict::StillOpen { .. });
        let id = settlement.finding.attempt;
        let mut tries = 0;
        loop {
            let settled = self.settler.write(settlement.clone()).await;
            match settled.unwrap_or(Err(NotSettled::Failed)) {
                Err(NotSettled::Held) if !nothing_learned => {}
                done => return done,
            }
            let held = NotSettled::Held.code();
            self.metrics.settlements.with_label_values(&[held]).inc();
            if tries == HELD_FOR_LONG {
                tracing::warn!(return.id = %id.return_id, attempt = id.number, "somebody holds a return or its order: the gateway's answer waits");
            }
            self.pause_held(tries).await;
            tries += 1;
        }
    }

    /// Later and later; while stopping often, because the drain deadline ends it.
    async fn pause_held(&self, tries: u32) {
        if self.stop.is_cancelled() {
            return tokio::time::sleep(HELD_STOPPING).await;
        }
        let pause = tokio::time::sleep(full_jitter(tries, HELD_BASE, HELD_CAP));
        self.stop.run_until_cancelled(pause).await;
    }

    async fn send(&self, attempt: &Attempt) -> Option<Finding> {
        if let Some(finding) = self.earlier_attempts(attempt).await {
            return Some(finding);
        }
        if let Err(error) = self.admitted(attempt.deadline).await {
            return Some(self.not_sent(attempt, error));
        }
        if !self.gateway.capabilities().native_idempotency && !self.mark_sent(attempt.id).await {
            return None;
        }
        let request = RefundRequest {
            key: attempt.key.clone(),
            amount: attempt.amount.clone(),
        };
        kill_point("consumer.before_call");
        let answer = self
            .call("submit", attempt.deadline, self.gateway.submit(&request))
            .await;
        kill_point("consumer.after_call");
        let verdict = match answer {
            Ok(answer) => answer::verdict(answer, &attempt.amount, self.gateway.capabilities())
                .unwrap_or_else(|error| Verdict::Unknown { error }),
            Err(CallFailed::NotSent(error)) => return Some(self.not_sent(attempt, error)),
            Err(CallFailed::Unknown(error) | CallFailed::Unusable(error)) => {
                Verdict::Unknown { error }
            }
            Err(CallFailed::KeyReused) => return Some(self.key_reused(attempt).await),
        };
        Some(self.finding(attempt, verdict))
    }

    /// The key names a refund already: perhaps ours. If not, no repeat will ever be accepted.
    async fn key_reused(&self, attempt: &Attempt) -> Finding {
        let parked = || {
            let reason = CallFailed::KeyReused.code();
            self.finding(attempt, Verdict::Park { reason })
        };
        self.look_up(attempt).await.unwrap_or_else(parked)
    }

    /// Looks the attempt up by its key; `None` if the gateway does not know it.
    async fn look_up(&self, attempt: &Attempt) -> Option<Finding> {
        let verdict = match self.find(&attempt.key, attempt.deadline).await {
            Ok(Some(answer)) => answer::found(answer, &attempt.amount, self.gateway.capabilities()),
            Ok(None) => return None,
            Err(failed) => answer::not_told(failed),
        };
        Some(self.finding(attempt, verdict))
    }

    /// "Not found" proves nothing about what may have been sent, so only the same key may go out again.
    async fn not_found(&self, attempt: &Attempt) -> Option<Finding> {
        let verdict = match attempt.known {
            Known::Fresh
            | Known::Unsent
            | Known::MaybeSent {
                may_resend: true, ..
            } => {
                return self.send(attempt).await;
            }
            Known::MaybeSent { checks, .. } if checks >= LOOK_UPS_BEFORE_PARKING => Verdict::Park {
                reason: "not_found",
            },
            Known::MaybeSent { .. } | Known::Pending { .. } => Verdict::StillOpen {
                error: "not_found",
                looked_up: true,
            },
        };
        Some(self.finding(attempt, verdict))
    }

    /// Asks for the state of what the gateway has accepted. It is never sent again.
    async fn poll(&self, attempt: &Attempt, gateway_ref: &str) -> Finding {
        let answer = match self.admitted(attempt.deadline).await {
            Ok(()) => {
                let call = self.gateway.status(gateway_ref, &attempt.key);
                self.call("status", attempt.deadline, call).await
            }
            Err(error) => Err(CallFailed::NotSent(error)),
        };
        let verdict = match answer {
            Ok(Some(answer)) => answer::found(answer, &attempt.amount, self.gateway.capabilities()),
            Ok(None) => Verdict::StillOpen {
                error: "pending_not_found",
                looked_up: true,
            },
            Err(failed) => answer::not_told(failed),
        };
        self.finding(attempt, verdict)
    }

    async fn find(
        &self,
        key: &IdempotencyKey,
        deadline: Instant,
    ) -> Result<Option<Answer>, CallFailed> {
        self.admitted(deadline).await.map_err(CallFailed::NotSent)?;
        self.call("find", deadline, self.gateway.find(key)).await
    }

    /// Waits until the gateway may be called.
    ///
    /// # Errors
    /// Why it will not be.
    async fn admitted(&self, deadline: Instant) -> Result<(), &'static str> {
        let latest = self.latest_start(deadline);
        // A timeout alone would still let a call through that is ready at once.
        if Instant::now() >= latest {
            return Err("no_time");
        }
        let ready = tokio::time::timeout_at(latest.into(), self.gateway.ready());
        match self.stop.run_until_cancelled(ready).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err("gateway_paused"),
            None => Err("stopping"),
        }
    }

    /// A call, within the attempt's deadline, counted.
    async fn call<T>(
        &self,
        operation: &'static str,
        deadline: Instant,
        call: impl Future<Output = Result<T, CallFailed>>,
    ) -> Result<T, CallFailed> {
        let began = Instant::now();
        // A timeout alone would still poll the call once, which may be enough to send it.
        if began >= deadline {
            return Err(CallFailed::NotSent("deadline_passed"));
        }
        let result = tokio::time::timeout_at(deadline.into(), call)
            .await
            .unwrap_or(Err(CallFailed::Unknown("timeout")));
        let seconds = began.elapsed().as_secs_f64();
        self.metrics
            .gateway_seconds
            .with_label_values(&[operation])
            .observe(seconds);
        let label = result
            .as_ref()
            .map_or_else(|failed| failed.code(), |_| "answered");
        self.metrics.gateway_calls.with_label_values(&[label]).inc();
        result
    }

    fn finding(&self, attempt: &Attempt, verdict: Verdict) -> Finding {
        Finding {
            attempt: attempt.id,
            verdict,
            finder: self.owner,
            taken_until: attempt.taken_until,
            unsent: None,
        }
    }
}
