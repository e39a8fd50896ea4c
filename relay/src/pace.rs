//! When to read next: immediately after a full batch, otherwise after a pause that grows while no rows arrive.
//!
//! The pause is a fixed share of the time since the last row arrived, so it adapts to every rate: with events 10 ms
//! apart it stays at the minimum, with events one second apart there are about eighty reads a second, and an idle relay
//! reaches the maximum. Exponential backoff does not adapt: after 10 idle milliseconds its pause would be 8 ms.

use std::time::{Duration, Instant};

/// The pause is one sixteenth of the idle time before it. So an event waits at most one sixteenth of the time since the
/// previous event.
const SHARE: u32 = 16;

#[derive(Debug)]
pub struct Pace {
    min: Duration,
    max: Duration,
    /// When rows last arrived.
    progressed_at: Instant,
    next: Instant,
}

impl Pace {
    pub fn new(min: Duration, max: Duration) -> Self {
        let now = Instant::now();
        Self {
            min,
            max,
            progressed_at: now,
            next: now,
        }
    }

    pub fn next(&self) -> Instant {
        self.next
    }

    pub fn immediately(&mut self, now: Instant) {
        self.progressed_at = now;
        self.next = now;
    }

    pub fn progressed(&mut self, now: Instant) {
        self.progressed_at = now;
        self.next = now + self.min;
    }

    pub fn idle(&mut self, now: Instant) {
        let idle_time = now.saturating_duration_since(self.progressed_at);
        self.next = now + (idle_time / SHARE).clamp(self.min, self.max);
    }

    /// Postpones the next read to `until`, unless it is later already.
    pub fn not_before(&mut self, until: Instant) {
        self.next = self.next.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_a_share_of_the_idle_time_within_its_bounds() {
        let (min, max) = (Duration::from_millis(1), Duration::from_millis(50));
        let mut pace = Pace::new(min, max);
        let start = Instant::now();
        pace.immediately(start);
        assert_eq!(pace.next(), start);
        let mut pause_after = |ms: u64| {
            let now = start + Duration::from_millis(ms);
            pace.idle(now);
            (pace.next() - now).as_micros()
        };
        assert_eq!(pause_after(1), 1_000);
        assert_eq!(pause_after(16), 1_000);
        assert_eq!(pause_after(100), 6_250);
        assert_eq!(pause_after(800), 50_000);
        assert_eq!(pause_after(3_600_000), 50_000);
        let now = start + Duration::from_secs(3_601);
        pace.progressed(now);
        assert_eq!(pace.next(), now + min);
        pace.idle(now + min);
        assert_eq!(pace.next(), now + min + min);
    }
}
