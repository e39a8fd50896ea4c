//! Work that repeats, back-off, and outages that are logged once.

use std::error::Error;
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio_util::sync::CancellationToken;

/// Paces work that repeats until `stop`: `while turns.next().await { work }`.
///
/// A loop and no closure, because the future of a closure that borrows its state cannot be sent to another thread
/// (rust-lang/rust issue 110338).
#[derive(Debug)]
pub struct Every {
    period: Duration,
    stop: CancellationToken,
    /// Before the next turn.
    pause: Duration,
}

/// Work at once, and again `period` after each end of it.
pub fn every(period: Duration, stop: &CancellationToken) -> Every {
    Every {
        period,
        stop: stop.clone(),
        pause: Duration::ZERO,
    }
}

impl Every {
    /// Waits for the next turn; `false` once stopped. Cancel-safe.
    pub async fn next(&mut self) -> bool {
        let pause = tokio::time::sleep(self.pause);
        let waited = self.stop.run_until_cancelled(pause).await.is_some();
        self.pause = self.period;
        waited && !self.stop.is_cancelled()
    }

    /// The next pause only: shorter because there is more to do, or longer after a failure.
    pub fn pause_next(&mut self, pause: Duration) {
        self.pause = pause;
    }
}

/// Exponential back-off with full jitter.
///
/// Full jitter spreads a herd best for the same total work
/// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub base: Duration,
    pub cap: Duration,
}

impl Backoff {
    /// A uniform share of `base × 2^attempt`, at most `cap`.
    pub fn pause(self, attempt: u32) -> Duration {
        self.ceiling(attempt)
            .mul_f64(rand::rng().random_range(0.0..=1.0))
    }

    fn ceiling(self, attempt: u32) -> Duration {
        let factor = 2_u32.saturating_pow(attempt);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

/// Logs an outage once: a warning when it begins, and its length when it ends.
#[derive(Debug)]
pub struct Outage {
    what: &'static str,
    since: Option<Instant>,
}

impl Outage {
    /// `what` reads as "WHAT fails" and "WHAT works again".
    pub fn new(what: &'static str) -> Self {
        Self { what, since: None }
    }

    /// A failure. Only the first of an outage is logged.
    pub fn failed(&mut self, error: &(dyn Error + 'static)) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!(
                error = chain(error),
                "{} fails; it is tried again",
                self.what
            );
        }
    }

    /// A success.
    pub fn ended(&mut self) {
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs_f64();
            tracing::info!(outage.seconds = seconds, "{} works again", self.what);
        }
    }
}

/// An error with its sources, as one text.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let backoff = Backoff {
            base: Duration::from_millis(5),
            cap: Duration::from_millis(100),
        };
        let millis = [0, 1, 4, 5, 31, u32::MAX].map(|attempt| backoff.ceiling(attempt).as_millis());
        assert_eq!(millis, [5, 10, 80, 100, 100, 100]);
        assert!((0..1_000).all(|n| backoff.pause(n % 10) <= backoff.ceiling(n % 10)));
    }

    #[tokio::test(start_paused = true)]
    async fn work_repeats_until_stopped_and_can_be_spawned() {
        let stop = CancellationToken::new();
        let began = tokio::time::Instant::now();
        let task = tokio::spawn(async move {
            let (mut turns, mut runs) = (every(Duration::from_secs(10), &stop), 0);
            while turns.next().await {
                runs += 1;
                match runs {
                    2 => turns.pause_next(Duration::from_secs(1)),
                    4 => stop.cancel(),
                    _ => {}
                }
            }
            runs
        });
        assert_eq!(task.await.expect("no panic"), 4);
        assert_eq!(began.elapsed(), Duration::from_secs(10 + 1 + 10));
    }
}
