//! When to read next: at once after a full batch, else after a pause that grows with the silence.
//!
//! The pause is a fixed share of the time since rows last came. So it fits every rate by itself: events 10 ms apart
//! are waited for at the shortest pause, events a second apart cost some eighty reads a second, and silence ends at the
//! longest pause. A pause that doubles has no such measure: after 10 ms of silence it would be 8 ms.

use std::time::{Duration, Instant};

/// The pause is this part of the silence before it: how much later than its commit an event is found at most,
/// measured in the time since the event before.
const SHARE: u32 = 16;

#[derive(Debug)]
pub struct Pace {
    min: Duration,
    max: Duration,
    /// When rows came last.
    busy: Instant,
    next: Instant,
}

impl Pace {
    pub fn new(min: Duration, max: Duration) -> Self {
        let now = Instant::now();
        Self {
            min,
            max,
            busy: now,
            next: now,
        }
    }

    pub fn next(&self) -> Instant {
        self.next
    }

    pub fn at_once(&mut self, now: Instant) {
        self.busy = now;
        self.next = now;
    }

    pub fn progressed(&mut self, now: Instant) {
        self.busy = now;
        self.next = now + self.min;
    }

    pub fn idle(&mut self, now: Instant) {
        let silence = now.saturating_duration_since(self.busy);
        self.next = now + (silence / SHARE).clamp(self.min, self.max);
    }

    /// Not before `until`.
    pub fn wait(&mut self, until: Instant) {
        self.next = self.next.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_a_share_of_the_silence_between_its_bounds() {
        let (min, max) = (Duration::from_millis(1), Duration::from_millis(50));
        let mut pace = Pace::new(min, max);
        let start = Instant::now();
        pace.at_once(start);
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
