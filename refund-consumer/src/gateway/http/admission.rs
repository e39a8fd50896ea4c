//! When the provider may be called: a rate limiter, pauses that the provider asks for, and a circuit breaker for when it
//! does not respond, denies access or refuses every refund. Calls wait here before they are recorded as sent.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use shared::domain::refund::ProviderKey;
use tokio::time::Instant;

use super::HttpArgs;
use super::refusals::Refusals;
use crate::gateway::CallKind;

/// How soon a waiting call notices that the provider is back.
const POLL: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub(super) struct Admission {
    rate: Option<DefaultDirectRateLimiter>,
    /// This many failed calls in a row open the circuit.
    most_failures: u32,
    /// While the circuit is open, one call per interval probes whether the provider is back.
    probe_interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// In a row.
    failures: u32,
    next_probe: Instant,
    paused_until: Instant,
    submits: Refusals,
    look_ups: Refusals,
}

impl State {
    fn refusals(&mut self, kind: CallKind) -> &mut Refusals {
        match kind {
            CallKind::Submit => &mut self.submits,
            CallKind::LookUp => &mut self.look_ups,
        }
    }
}

/// A call in progress. If it is dropped before it succeeded, it has failed.
#[derive(Debug)]
pub(super) struct Call<'a> {
    admission: &'a Admission,
    succeeded: bool,
}

impl Call<'_> {
    pub(super) fn succeeded(mut self) {
        self.succeeded = true;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.admission.count(self.succeeded);
    }
}

impl Admission {
    pub(super) fn new(args: &HttpArgs) -> Self {
        let now = Instant::now();
        Self {
            rate: args.gateway_rate_per_sec.map(rate_limiter),
            most_failures: args.gateway_breaker_failures,
            probe_interval: Duration::from_millis(args.gateway_breaker_pause_ms),
            state: Mutex::new(State {
                failures: 0,
                next_probe: now,
                paused_until: now,
                submits: Refusals::none(),
                look_ups: Refusals::none(),
            }),
        }
    }

    /// Waits until a call may be made. Cancel-safe: a cancelled wait uses up at most one token of the rate limit.
    pub(super) async fn admit(&self, kind: CallKind) {
        loop {
            while let Some(wait) = self.closed_for(kind) {
                tokio::time::sleep(wait.min(POLL)).await;
            }
            if let Some(rate) = &self.rate {
                rate.until_ready().await;
            }
            // The provider may have asked for a pause meanwhile.
            if self.enter(kind) {
                return;
            }
        }
    }

    pub(super) fn begin_call(&self) -> Call<'_> {
        Call {
            admission: self,
            succeeded: false,
        }
    }

    /// Makes calls wait, as the provider has asked.
    pub(super) fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.state();
        state.paused_until = state.paused_until.max(until);
        drop(state);
        tracing::warn!(seconds = pause.as_secs(), "the gateway asks for a pause");
    }

    /// How long until a call may be made; `None` if it may be made now.
    pub(super) fn closed_for(&self, kind: CallKind) -> Option<Duration> {
        let (now, mut state) = (Instant::now(), self.state());
        let until = self.closed_until(&mut state, kind);
        (now < until).then(|| until - now)
    }

    /// The provider has refused a call, or its response was not understood.
    pub(super) fn refused(&self, kind: CallKind, key: &ProviderKey) {
        let (most, interval) = (self.most_failures, self.probe_interval);
        let opens = self.state().refusals(kind).refused(key, most, interval);
        if opens {
            let calls = kind.as_str();
            tracing::error!(
                calls,
                "the gateway refuses every refund, or its responses are not understood: calls wait, and no refund is parked for it"
            );
        }
    }

    /// The provider has answered as in its contract.
    pub(super) fn accepted(&self, kind: CallKind, key: &ProviderKey) {
        let most = self.most_failures;
        let was_open = self.state().refusals(kind).accepted(key, most);
        if was_open {
            tracing::info!(calls = kind.as_str(), "the gateway accepts calls again");
        }
    }

    /// Whether a refusal now would be about this refund only.
    pub(super) fn is_about(&self, kind: CallKind, key: &ProviderKey) -> bool {
        self.state().refusals(kind).are_about(key)
    }

    pub(super) fn refuses_all(&self, kind: CallKind) -> bool {
        self.state().refusals(kind).are_about_all()
    }

    /// Admits one call, if calls may be made now.
    fn enter(&self, kind: CallKind) -> bool {
        let (now, mut state) = (Instant::now(), self.state());
        if now < self.closed_until(&mut state, kind) {
            return false;
        }
        state
            .refusals(kind)
            .probe(self.most_failures, self.probe_interval);
        if self.is_open(&state) {
            state.next_probe = now + self.probe_interval;
        }
        true
    }

    fn closed_until(&self, state: &mut State, kind: CallKind) -> Instant {
        let silent = self.is_open(state).then_some(state.next_probe);
        let refusing = state.refusals(kind).next_probe(self.most_failures);
        let probes = [silent, refusing].into_iter().flatten();
        probes.fold(state.paused_until, Instant::max)
    }

    /// Whether the circuit is open.
    fn is_open(&self, state: &State) -> bool {
        state.failures >= self.most_failures
    }

    fn count(&self, succeeded: bool) {
        let mut state = self.state();
        let was_open = self.is_open(&state);
        state.failures = if succeeded {
            0
        } else {
            state.failures.saturating_add(1)
        };
        let is_open = self.is_open(&state);
        if is_open && !was_open {
            state.next_probe = Instant::now() + self.probe_interval;
        }
        drop(state);
        match (was_open, is_open) {
            (false, true) => {
                tracing::error!("the gateway does not respond or denies access: calls wait")
            }
            (true, false) => tracing::info!("the gateway responds again"),
            _ => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bursts of at most a tenth of a second's calls: after a full second's burst the second that it ends in would exceed the
/// limit.
fn rate_limiter(per_second: NonZeroU32) -> DefaultDirectRateLimiter {
    let burst = NonZeroU32::new(per_second.get() / 10).unwrap_or(NonZeroU32::MIN);
    RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BETWEEN: Duration = Duration::from_secs(5);

    fn admission(per_second: Option<u32>) -> Admission {
        Admission::new(&HttpArgs {
            gateway_name: None,
            gateway_url: None,
            gateway_token: None,
            gateway_idempotency_keys: true,
            gateway_call_timeout_ms: 1_000,
            gateway_connect_timeout_ms: 1_000,
            gateway_rate_per_sec: per_second.and_then(NonZeroU32::new),
            gateway_breaker_failures: 3,
            gateway_breaker_pause_ms: 5_000,
            gateway_pool_idle_ms: 1_000,
        })
    }

    async fn waited(admission: &Admission) -> Duration {
        let began = Instant::now();
        admission.admit(CallKind::Submit).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_admit_one_probe_at_a_time() {
        let admission = admission(None);
        for _ in 0..2 {
            drop(admission.begin_call());
        }
        admission.begin_call().succeeded();
        for _ in 0..3 {
            assert_eq!(waited(&admission).await, Duration::ZERO, "not in a row yet");
            drop(admission.begin_call());
        }
        assert!(waited(&admission).await >= BETWEEN, "the first probe");
        assert!(waited(&admission).await >= BETWEEN, "the next probe");
        admission.begin_call().succeeded();
        assert_eq!(waited(&admission).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_pause_does_not_end_a_longer_one() {
        let admission = admission(None);
        admission.pause(Duration::from_secs(7));
        admission.pause(Duration::from_secs(1));
        let waited = waited(&admission).await;
        assert!(
            waited >= Duration::from_secs(7) && waited < Duration::from_secs(8),
            "{waited:?}"
        );
    }

    /// A call that waits for the rate limit when the provider asks for a pause waits for the pause too.
    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_back_calls_that_wait_for_the_rate_limit() {
        let admission = admission(Some(1));
        admission.admit(CallKind::Submit).await;
        let mut next = Box::pin(admission.admit(CallKind::Submit));
        let soon = tokio::time::timeout(Duration::from_millis(1), &mut next);
        assert!(soon.await.is_err(), "it waits for the rate limit");
        admission.pause(Duration::from_secs(7));
        let began = Instant::now();
        next.await;
        assert!(began.elapsed() >= Duration::from_secs(7));
    }

    #[tokio::test]
    async fn the_rate_limit_is_kept() {
        let admission = admission(Some(100));
        let began = std::time::Instant::now();
        for _ in 0..60 {
            admission.admit(CallKind::Submit).await;
        }
        assert!(
            began.elapsed() >= Duration::from_millis(490),
            "{:?}",
            began.elapsed()
        );
    }
}
