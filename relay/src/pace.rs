//! When to read next: at once after a full batch, else after a pause that doubles while nothing comes.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Pace {
    min: Duration,
    max: Duration,
    pause: Duration,
    next: Instant,
}

impl Pace {
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            pause: min,
            next: Instant::now(),
        }
    }

    pub fn next(&self) -> Instant {
        self.next
    }

    pub fn at_once(&mut self, now: Instant) {
        self.pause = self.min;
        self.next = now;
    }

    pub fn progressed(&mut self, now: Instant) {
        self.pause = self.min;
        self.next = now + self.min;
    }

    pub fn idle(&mut self, now: Instant) {
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(self.max);
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
    fn the_pause_doubles_while_idle_and_is_reset_by_work() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::from_millis(1), Duration::from_millis(50));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pace.idle(now);
            pauses.push((pace.next() - now).as_millis());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 50, 50]);
        pace.progressed(now);
        assert_eq!((pace.next() - now).as_millis(), 1);
        pace.at_once(now);
        assert_eq!(pace.next(), now);
    }
}
