//! Clocks other than the database's, for rights and times that come from outside this process.
//!
//! A right such as a lease or the lifetime of a key expires elsewhere, and goes on expiring while this machine is suspended.
//! The monotonic clock (`Instant`, and every timer of tokio) stands still then, so it must not decide whether such a right
//! is still valid. Check an [`Expiry`] after every wait, directly before what the right allows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A moment by the two clocks that go on while the machine is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// `CLOCK_BOOTTIME`: it also counts the time of a suspension. Nobody sets it.
    boot: Duration,
    /// The wall clock: a virtual machine that is restored from a snapshot continues its boot-time clock where it was, and
    /// only this clock is corrected.
    wall: Duration,
}

impl Moment {
    pub fn now() -> Self {
        let boot = clock_gettime(ClockId::Boottime);
        Self {
            boot: Duration::try_from(boot).expect("the time since the boot is not negative"),
            wall: wall(),
        }
    }

    /// How long ago it was, by the clock that went further. So a wall clock that is set forward ends a right too early,
    /// which is safe, and one that is set back changes nothing.
    pub fn elapsed(self) -> Duration {
        self.until(Self::now())
    }

    fn until(self, later: Self) -> Duration {
        let boot = later.boot.saturating_sub(self.boot);
        boot.max(later.wall.saturating_sub(self.wall))
    }
}

/// Milliseconds since 1970 by the wall clock, to compare with timestamps from elsewhere.
pub fn unix_millis() -> i64 {
    i64::try_from(wall().as_millis()).unwrap_or(i64::MAX)
}

/// The end of a right that expires elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    begun: Moment,
    length: Duration,
}

impl Expiry {
    /// `begun` must not be later than the moment at which the right began elsewhere: read it before the request for it.
    pub fn new(begun: Moment, length: Duration) -> Self {
        Self { begun, length }
    }

    /// What is left at this moment.
    pub fn left(&self) -> Duration {
        self.left_at(Moment::now())
    }

    pub fn is_over(&self) -> bool {
        self.is_over_at(Moment::now())
    }

    /// As [`Self::is_over`], for several checks that must agree.
    pub fn is_over_at(&self, now: Moment) -> bool {
        self.left_at(now).is_zero()
    }

    fn left_at(&self, now: Moment) -> Duration {
        self.length.saturating_sub(self.begun.until(now))
    }
}

/// Unix seconds of this machine, for times that other parties have written. Due times and leases use the database's clock.
pub fn unix_secs() -> u64 {
    wall().as_secs()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place, for times that come from neither the database nor this process"
)]
fn wall() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(boot: u32, wall: u32) -> Moment {
        Moment {
            boot: SECOND * boot,
            wall: SECOND * wall,
        }
    }

    #[test]
    fn the_clock_that_went_further_ends_a_right() {
        let right = Expiry::new(at(100, 1_000), SECOND * 30);
        for (now, left, what) in [
            (at(100, 1_000), 30, "at once"),
            (at(129, 1_029), 1, "in time"),
            (at(130, 1_030), 0, "over"),
            (at(700, 1_600), 0, "after a suspension"),
            (at(101, 1_600), 0, "restored from a snapshot"),
            (at(110, 400), 20, "the wall clock was set back"),
            (at(110, 1_011), 19, "the wall clock was corrected a little"),
        ] {
            assert_eq!(right.left_at(now), SECOND * left, "{what}");
            assert_eq!(right.is_over_at(now), left == 0, "{what}");
        }
    }

    #[test]
    fn time_passes() {
        let right = Expiry::new(Moment::now(), Duration::from_nanos(1));
        while !right.is_over() {}
        assert!(!Expiry::new(Moment::now(), SECOND * 3_600).is_over());
    }
}
