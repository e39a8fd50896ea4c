//! When the provider may be called: a token bucket for its rate limit, pauses that it asks for, and a circuit breaker
//! for when it does not answer or knows us no longer. Calls wait here before anything about them is written down as sent.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use crate::config::HttpArgs;

/// How soon a waiting call sees that the provider answers again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub(super) struct Brake {
    bucket: Option<DefaultDirectRateLimiter>,
    /// So many calls in a row without an answer open the circuit.
    most_failures: u32,
    /// While it is open, one call each time tries whether the provider is back.
    between_tries: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// In a row.
    failures: u32,
    next_try: Instant,
    paused_until: Instant,
}

/// A call under way; dropped without an answer it has failed.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    brake: &'a Brake,
    answered: bool,
}

impl Watched<'_> {
    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.brake.note(self.answered);
    }
}

impl Brake {
    pub(super) fn new(args: &HttpArgs) -> Self {
        let now = Instant::now();
        Self {
            bucket: args.gateway_rate_per_sec.map(bucket),
            most_failures: args.gateway_breaker_failures,
            between_tries: Duration::from_millis(args.gateway_breaker_pause_ms),
            state: Mutex::new(State {
                failures: 0,
                next_try: now,
                paused_until: now,
            }),
        }
    }

    /// Waits until a call may be made. Cancel-safe: who gives up has taken at most a token.
    pub(super) async fn admit(&self) {
        loop {
            while let Some(wait) = self.closed_for() {
                tokio::time::sleep(wait.min(LOOK_AGAIN)).await;
            }
            if let Some(bucket) = &self.bucket {
                bucket.until_ready().await;
            }
            // The provider may have asked for a pause meanwhile.
            if self.enter() {
                return;
            }
        }
    }

    pub(super) fn watch(&self) -> Watched<'_> {
        Watched {
            brake: self,
            answered: false,
        }
    }

    /// As the provider has asked.
    pub(super) fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.state();
        state.paused_until = state.paused_until.max(until);
        drop(state);
        tracing::warn!(seconds = pause.as_secs(), "the gateway asks for a pause");
    }

    /// How long until a call may be tried; `None` for now.
    pub(super) fn closed_for(&self) -> Option<Duration> {
        let (now, state) = (Instant::now(), self.state());
        let until = self.until(&state);
        (now < until).then(|| until - now)
    }

    /// Lets one call through, if calls may be tried now.
    fn enter(&self) -> bool {
        let (now, mut state) = (Instant::now(), self.state());
        if now < self.until(&state) {
            return false;
        }
        if self.is_open(&state) {
            state.next_try = now + self.between_tries;
        }
        true
    }

    fn until(&self, state: &State) -> Instant {
        if self.is_open(state) {
            state.paused_until.max(state.next_try)
        } else {
            state.paused_until
        }
    }

    fn is_open(&self, state: &State) -> bool {
        state.failures >= self.most_failures
    }

    fn note(&self, answered: bool) {
        let mut state = self.state();
        let was_open = self.is_open(&state);
        state.failures = if answered {
            0
        } else {
            state.failures.saturating_add(1)
        };
        let is_open = self.is_open(&state);
        if is_open && !was_open {
            state.next_try = Instant::now() + self.between_tries;
        }
        drop(state);
        match (was_open, is_open) {
            (false, true) => {
                tracing::error!("the gateway does not answer, or lets nobody in: calls wait")
            }
            (true, false) => tracing::info!("the gateway answers again"),
            _ => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At most a tenth of a second's calls at once: a full second's burst would exceed the limit of the second it ends in.
fn bucket(per_second: NonZeroU32) -> DefaultDirectRateLimiter {
    let burst = NonZeroU32::new(per_second.get() / 10).unwrap_or(NonZeroU32::MIN);
    RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BETWEEN: Duration = Duration::from_secs(5);

    fn brake(per_second: Option<u32>) -> Brake {
        Brake::new(&HttpArgs {
            gateway_url: None,
            gateway_token: None,
            gateway_idempotency_keys: true,
            gateway_call_timeout_ms: 1_000,
            gateway_connect_timeout_ms: 1_000,
            gateway_rate_per_sec: per_second.and_then(NonZeroU32::new),
            gateway_breaker_failures: 3,
            gateway_breaker_pause_ms: 5_000,
        })
    }

    async fn waited(brake: &Brake) -> Duration {
        let began = Instant::now();
        brake.admit().await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_let_one_call_try_at_a_time() {
        let brake = brake(None);
        for _ in 0..2 {
            drop(brake.watch());
        }
        brake.watch().answered();
        for _ in 0..3 {
            assert_eq!(waited(&brake).await, Duration::ZERO, "not in a row yet");
            drop(brake.watch());
        }
        assert!(waited(&brake).await >= BETWEEN, "the first try");
        assert!(waited(&brake).await >= BETWEEN, "the next try");
        brake.watch().answered();
        assert_eq!(waited(&brake).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_kept_and_a_shorter_one_does_not_end_it() {
        let brake = brake(None);
        brake.pause(Duration::from_secs(7));
        brake.pause(Duration::from_secs(1));
        let waited = waited(&brake).await;
        assert!(
            waited >= Duration::from_secs(7) && waited < Duration::from_secs(8),
            "{waited:?}"
        );
    }

    /// Whoever waited for the rate when the provider asked for a pause waits for that too.
    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_back_calls_that_wait_for_the_rate() {
        let brake = brake(Some(1));
        brake.admit().await;
        let mut next = Box::pin(brake.admit());
        let soon = tokio::time::timeout(Duration::from_millis(1), &mut next);
        assert!(soon.await.is_err(), "it waits for the rate");
        brake.pause(Duration::from_secs(7));
        let began = Instant::now();
        next.await;
        assert!(began.elapsed() >= Duration::from_secs(7));
    }

    #[tokio::test]
    async fn the_rate_is_kept() {
        let brake = brake(Some(100));
        let began = std::time::Instant::now();
        for _ in 0..60 {
            brake.admit().await;
        }
        assert!(
            began.elapsed() >= Duration::from_millis(490),
            "{:?}",
            began.elapsed()
        );
    }
}
