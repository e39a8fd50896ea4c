//! One attempt from intent to outcome: call the gateway, settle what was learned.
//!
//! Must stay true: a call starts only before the attempt's deadline, so before another process may take it over; the
//! deadline passes while the machine is suspended, too. An
//! unknown outcome never counts as "not paid": what may have been sent is looked up before it is sent again, and sent
//! again only with the same key within the key's lifetime. The attempt's row survives, not this task: a task may end
//! anywhere, and its row is due again at its deadline.

mod calls;
mod coverage;
mod earlier;
mod look_up;
mod ownership;
mod recheck;
mod response;

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::domain::refund::{
    AttemptId, Outcome, OutcomeReport, ParkReason, Settled, UnusableAnswer,
};
use shared::runtime::db::Database;
use shared::runtime::killpoint::kill_point;
use shared::runtime::tasks::Backoff;
use shared::runtime::trace::{KeyValue, Span, names};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use calls::Waiters;
pub use ownership::{Marked, mark_sent};

use crate::attempt::{NotSettled, OwnedAttempt, SendState};
use crate::batcher::Batcher;
use crate::gateway::{Answer, CallFailed, CallKind, RefundGateway, RefundRequest};
use crate::metrics::Metrics;
use crate::open_attempts::OpenAttempts;
use crate::settle::Settlement;
use crate::spans;
use crate::stages::Submitted;

/// A batch of ours holds its rows for up to about 0.2 s, a forgotten client for as long as it likes.
const HELD: Backoff = Backoff {
    base: Duration::from_millis(20),
    cap: Duration::from_secs(5),
};
const HELD_STOPPING: Duration = Duration::from_millis(100);
/// The log reports a held row after this many tries, about five seconds.
const HELD_FOR_LONG: u32 = 10;

/// Carries attempts to their outcome, many at a time.
#[derive(Debug)]
pub struct RefundWorker<G> {
    pub gateway: G,
    pub db: Database,
    pub owner: Uuid,
    pub open: OpenAttempts,
    pub max_open: usize,
    /// From the claim to the end of the call.
    pub call_deadline: Duration,
    pub parallel_calls: usize,
    /// One permit per gateway call at the same time.
    pub call_permits: Semaphore,
    /// Payments that have a call permit, and wait until the gateway admits their call.
    pub payments_waiting: Waiters,
    pub settlements: Batcher<Settlement, Result<Settled, NotSettled>>,
    /// From claimed to sent, for gateways without keys.
    pub mark_sent: Batcher<AttemptId, Marked>,
    pub metrics: Metrics,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

impl<G: RefundGateway> RefundWorker<G> {
    /// Carries each attempt to its outcome, in a task of its own.
    pub fn take(self: &Arc<Self>, attempts: Vec<OwnedAttempt>) {
        for attempt in attempts {
            // A slow claim may let its attempt fall due, and then we have taken it over ourselves already.
            if !self.open.add(attempt.id, attempt.sent.is_unsent()) {
                continue;
            }
            let worker = Arc::clone(self);
            self.tasks.spawn(async move { worker.carry(attempt).await });
        }
    }

    /// How many more attempts this process should take.
    pub fn room(&self) -> usize {
        self.max_open.saturating_sub(self.open.count())
    }

    /// How many more attempts may come from messages: a backlog in Kafka must not starve approvals, retries and unclear
    /// attempts. There is no room while the gateway accepts no calls: claimed attempts would only wait and fall due.
    pub fn room_for_messages(&self) -> usize {
        if self.gateway.is_closed() {
            return 0;
        }
        self.most_for_messages().saturating_sub(self.open.count())
    }

    /// How many more calls could begin now that no payment waits for. While attempts wait for a call permit there are none: a
    /// permit that becomes free is theirs. Nor are there any while payments wait for the gateway's rate limit.
    pub fn free_calls(&self) -> usize {
        if self.payments_waiting.any() {
            return 0;
        }
        self.call_permits.available_permits()
    }

    /// Above this many open attempts no messages are taken.
    pub fn most_for_messages(&self) -> usize {
        self.max_open - self.max_open / 4
    }

    async fn carry(&self, attempt: OwnedAttempt) {
        let span = spans::refund(&attempt);
        let until_end = span.cancel_on_drop();
        if let Some(result) = span.scope(self.carry_within(&span, attempt)).await {
            span.set(|| [KeyValue::new(names::REFUND_OUTCOME, result)]);
            span.end();
        }
        drop(until_end);
    }

    /// Returns what became of the attempt; `None` if it was left to others.
    async fn carry_within(&self, span: &Span, attempt: OwnedAttempt) -> Option<&'static str> {
        // Stopping: without a permit it stays among the waiting attempts, which are given back at the end.
        let permit = self.call_permit().await?;
        let _open = self.open.call(attempt.id);
        let report = if self.has_time(&attempt.deadline) {
            self.call_gateway(&attempt).await
        } else {
            self.metrics.work.expired_before_call.inc();
            Some(self.too_late(&attempt))
        };
        drop(permit);
        let answered = Instant::now();
        Some(self.settle(span, &attempt, report?, answered).await)
    }

    /// There was no call permit in time: the attempt is given up at once, for any process that has room.
    fn too_late(&self, attempt: &OwnedAttempt) -> OutcomeReport {
        const ERROR: &str = "no_turn";
        if attempt.sent.is_unsent() {
            return self.not_sent(attempt, ERROR);
        }
        let still_open = Outcome::StillOpen {
            error: ERROR,
            looked_up: false,
            answer: None,
        };
        self.report(attempt, still_open)
    }

    fn not_sent(&self, attempt: &OwnedAttempt, error: &'static str) -> OutcomeReport {
        let outcome = Outcome::NotSent {
            error,
            never_sent: attempt.sent.is_unsent(),
            answer: None,
        };
        self.report(attempt, outcome)
    }

    /// As stored and counted. While every call of this kind is answered so, this attempt is not to blame.
    fn unusable(&self, kind: CallKind, reason: ParkReason, answer: Answer) -> UnusableAnswer {
        UnusableAnswer {
            words: answer.words,
            counts: !self.gateway.refuses_all(kind),
            reason,
        }
    }

    /// `None` once stopping, even if a permit is free: no new call begins then.
    async fn call_permit(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.call_permits.acquire();
        let permit = self.stop.run_until_cancelled(permit).await?;
        let permit = permit.expect("the semaphore is never closed");
        (!self.stop.is_cancelled()).then_some(permit)
    }

    /// What the gateway reports about the attempt; `None` if it was taken over before it could be sent.
    async fn call_gateway(&self, attempt: &OwnedAttempt) -> Option<OutcomeReport> {
        match &attempt.sent {
            SendState::Fresh => self.send(attempt).await,
            SendState::Pending { gateway_ref } => Some(self.poll(attempt, gateway_ref).await),
            SendState::Paid { gateway_ref } => Some(self.recheck(attempt, gateway_ref).await),
            SendState::Unsent | SendState::MaybeSent { .. } => match self.look_up(attempt).await {
                Some(report) => Some(look_up::still_unsent(attempt, report)),
                None => self.not_found(attempt).await,
            },
        }
    }

    /// Returns what became of the report, as counted.
    async fn settle(
        &self,
        span: &Span,
        attempt: &OwnedAttempt,
        report: OutcomeReport,
        answered: Instant,
    ) -> &'static str {
        kill_point("consumer.before_settle");
        let settlement = Settlement {
            order_id: attempt.order_id,
            report,
            span: span.clone(),
        };
        let settled = self.write(settlement).await;
        kill_point("consumer.after_settle");
        let result = settled.map_or_else(NotSettled::as_str, Settled::as_str);
        if let Ok(settled) = settled {
            let submitted = attempt.submitted.get();
            self.metrics.stages.settled(settled, submitted, answered);
        }
        self.metrics
            .gateway
            .settlements
            .with_label_values(&[result])
            .inc();
        if settled.is_ok_and(Settled::needs_a_person) {
            tracing::error!(return.id = %attempt.id.return_id, attempt = attempt.id.number, result, "a refund needs a person");
        }
        result
    }

    /// Keeps what was learned for as long as another transaction holds the rows: a provider without look-ups would not
    /// report it again. Only the drain deadline ends that. If nothing was learned, there is nothing to keep.
    async fn write(&self, settlement: Settlement) -> Result<Settled, NotSettled> {
        let nothing_learned = matches!(settlement.report.outcome, Outcome::StillOpen { .. });
        let id = settlement.report.attempt;
        let mut tries = 0;
        loop {
            let settled = self.settlements.write(settlement.clone()).await;
            match settled.unwrap_or(Err(NotSettled::Failed)) {
                Err(NotSettled::Held) if !nothing_learned => {}
                done => return done,
            }
            let held = NotSettled::Held.as_str();
            self.metrics
                .gateway
                .settlements
                .with_label_values(&[held])
                .inc();
            if tries == HELD_FOR_LONG {
                tracing::warn!(return.id = %id.return_id, attempt = id.number, "another transaction holds a return or its order: the gateway's response waits");
            }
            self.pause_held(tries).await;
            tries += 1;
        }
    }

    /// Exponential backoff; while stopping a short pause, because the drain deadline ends it.
    async fn pause_held(&self, tries: u32) {
        if self.stop.is_cancelled() {
            return tokio::time::sleep(HELD_STOPPING).await;
        }
        let pause = tokio::time::sleep(HELD.pause(tries));
        self.stop.run_until_cancelled(pause).await;
    }

    async fn send(&self, attempt: &OwnedAttempt) -> Option<OutcomeReport> {
        if let Some(report) = self.look_up_earlier(attempt).await {
            return Some(report);
        }
        if !attempt.amount.is_payable() {
            let reason = ParkReason::AmountNotPayable;
            return Some(self.report(attempt, Outcome::Park { reason }));
        }
        if let Err(error) = self
            .payment_admitted(attempt.deadline, CallKind::Submit)
            .await
        {
            return Some(self.not_sent(attempt, error));
        }
        if let Some(report) = self.not_covered(attempt).await {
            return Some(report);
        }
        if !self.has_time(&attempt.deadline) {
            return Some(self.not_sent(attempt, "no_time"));
        }
        if !self.gateway.capabilities().native_idempotency {
            match self.mark_sent(attempt.id).await {
                Marked::Ours => {}
                Marked::TakenOver => return None,
                // The gateway was not called, so the attempt goes back to claimed, also if the mark was written.
                Marked::Unknown => return Some(self.not_sent(attempt, "database")),
            }
        }
        let request = RefundRequest {
            key: attempt.key.clone(),
            amount: attempt.amount.clone(),
            sent_before: attempt.sent.sent_before(),
        };
        kill_point("consumer.before_call");
        attempt.submitted.get_or_init(Submitted::now);
        let refund = self
            .call("submit", attempt.deadline, self.gateway.submit(&request))
            .await;
        kill_point("consumer.after_call");
        let outcome = match refund {
            Ok(refund) => response::submitted(refund, &attempt.amount, self.gateway.capabilities()),
            Err(CallFailed::NotSent(error)) => return Some(self.not_sent(attempt, error)),
            Err(CallFailed::Refused { reason, answer }) => {
                return Some(self.refused(attempt, reason, answer).await);
            }
            Err(CallFailed::NotUnderstood(answer)) => Outcome::Unknown {
                error: answer.code,
                answer: Some(self.unusable(CallKind::Submit, ParkReason::NotUnderstood, answer)),
            },
            Err(failed @ (CallFailed::Unknown(_) | CallFailed::Unusable(_))) => Outcome::Unknown {
                error: failed.as_str(),
                answer: None,
            },
        };
        Some(self.report(attempt, outcome))
    }

    /// A used key names a refund already: perhaps ours.
    async fn refused(
        &self,
        attempt: &OwnedAttempt,
        reason: ParkReason,
        answer: Answer,
    ) -> OutcomeReport {
        if reason == ParkReason::KeyReused
            && let Some(report) = self.look_up(attempt).await
        {
            return report;
        }
        let outcome = Outcome::NotSent {
            error: answer.code,
            never_sent: attempt.sent.is_unsent(),
            answer: Some(self.unusable(CallKind::Submit, reason, answer)),
        };
        self.report(attempt, outcome)
    }

    fn report(&self, attempt: &OwnedAttempt, outcome: Outcome) -> OutcomeReport {
        OutcomeReport {
            attempt: attempt.id,
            outcome,
            reporter: self.owner,
            owned_until: attempt.owned_until,
            unsent: None,
        }
    }
}
