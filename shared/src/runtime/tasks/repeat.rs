//! Work that repeats, back-off, and outages that are logged once.

use std::borrow::Cow;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
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

/// An outage that lasts is logged again after this time.
const REMINDER: Duration = Duration::from_secs(60);

/// Logs an outage: a warning with the cause when it begins and once a minute while it lasts, and its length when it ends.
#[derive(Debug)]
pub struct Outage {
    what: Cow<'static, str>,
    lasts: Option<Lasting>,
}

#[derive(Debug)]
struct Lasting {
    since: Instant,
    logged: Instant,
    failures: u64,
}

impl Outage {
    /// `what` reads as "WHAT fails" and "WHAT works again".
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            what: what.into(),
            lasts: None,
        }
    }

    /// A failure. The first of an outage is logged, and one a minute.
    pub fn failed(&mut self, error: &(dyn Error + 'static)) {
        match self.note(Instant::now()) {
            Some((1, _)) => {
                tracing::warn!(
                    error = chain(error),
                    "{} fails; it is tried again",
                    self.what
                );
            }
            Some((failures, lasts)) => tracing::warn!(
                error = chain(error),
                outage.seconds = lasts.as_secs_f64(),
                outage.failures = failures,
                "{} still fails",
                self.what
            ),
            None => {}
        }
    }

    /// The number of failures and the length so far, if they must be logged.
    fn note(&mut self, now: Instant) -> Option<(u64, Duration)> {
        let lasting = self.lasts.get_or_insert(Lasting {
            since: now,
            logged: now,
            failures: 0,
        });
        lasting.failures += 1;
        let is_due = lasting.failures == 1 || now - lasting.logged >= REMINDER;
        is_due.then(|| {
            lasting.logged = now;
            (lasting.failures, now - lasting.since)
        })
    }

    /// A success.
    pub fn ended(&mut self) {
        if let Some(Lasting {
            since, failures, ..
        }) = self.lasts.take()
        {
            let seconds = since.elapsed().as_secs_f64();
            tracing::info!(
                outage.seconds = seconds,
                outage.failures = failures,
                "{} works again",
                self.what
            );
        }
    }
}

/// Limits one kind of log line to one a minute, for a failure that each of many requests meets and none can see the end of.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<Option<(Instant, u64)>>);

impl Rarely {
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// How many lines were left out since the last one, if one must be logged now.
    pub fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((logged, left_out)) if now - *logged < REMINDER => {
                *left_out += 1;
                None
            }
            last => Some(last.replace((now, 0)).map_or(0, |(_, left_out)| left_out)),
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

    #[test]
    fn an_outage_is_logged_when_it_begins_and_once_a_minute() {
        let (mut outage, start) = (Outage::new("reading"), Instant::now());
        let failed = |second: u64| outage.note(start + Duration::from_secs(second));
        let logged: Vec<u64> = (0..150)
            .filter_map(failed)
            .map(|(count, _)| count)
            .collect();
        assert_eq!(logged, [1, 61, 121]);
        outage.ended();
        assert_eq!(outage.note(start), Some((1, Duration::ZERO)));
    }

    #[test]
    fn a_line_appears_once_a_minute_with_the_number_of_those_left_out() {
        let (line, start) = (Rarely::new(), Instant::now());
        let due = |second| line.due_at(start + Duration::from_secs(second));
        assert_eq!(
            [0, 1, 59, 60, 61].map(due),
            [Some(0), None, None, Some(2), None]
        );
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
