//! Where the next read of one shard begins.
//!
//! A pass reads forward from `position`. Auto-increment order is not commit order, so rows keep appearing below it:
//! - what commits a little late is found by the next pass, which begins at the *floor* (where the position was a
//!   second or two ago);
//! - what commits below the floor is found by a *sweep* from 0.
//!
//! The floor is there only because delete-marked rows make a scan from 0 slow; for the same reason the shards are swept
//! one after the other, so that no read has to do it for all. Neither decides the order of one return's events: that is
//! the predecessor rule's business.

use std::time::{Duration, Instant};

use shared::domain::ids::Shard;

/// How far, in time, the floor lags behind the position: longer than almost every transaction.
const FLOOR_LAG: Duration = Duration::from_secs(1);
/// The longest that a row which committed below the floor waits to be found.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// The shortest time between two passes: rows in flight are read again in each.
const PASS_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct Cursor {
    position: i64,
    floor: i64,
    /// The next floor: the position at `marked`.
    mark: i64,
    marked: Instant,
    /// The present pass has read to the end of the shard.
    complete: bool,
    begun: Instant,
    sweep_at: Instant,
    /// Moved back since the last read was asked for: what that read saw must not move it forward.
    rewound: bool,
}

impl Cursor {
    pub fn at_zero(shard: Shard, now: Instant) -> Self {
        let place = u32::from(shard.0) + 1;
        Self {
            position: 0,
            floor: 0,
            mark: 0,
            marked: now,
            complete: false,
            begun: now,
            sweep_at: now + SWEEP_EVERY * place / u32::from(Shard::COUNT),
            rewound: false,
        }
    }

    /// The id after which the next read begins; starts a new pass or a sweep when one is due.
    pub fn ask(&mut self, now: Instant) -> i64 {
        if now >= self.sweep_at {
            self.position = 0;
            self.begun = now;
            // By its own clock, so that a long silence does not bring the shards together.
            while now >= self.sweep_at {
                self.sweep_at += SWEEP_EVERY;
            }
        } else if self.complete && now - self.begun >= PASS_EVERY {
            self.position = self.floor;
            self.begun = now;
        }
        self.complete = false;
        self.rewound = false;
        self.position
    }

    /// The read that was asked for last came back with rows up to `last`; `complete` if there were no more.
    pub fn advance(&mut self, last: Option<i64>, complete: bool, now: Instant) {
        if self.rewound {
            return;
        }
        self.position = last.unwrap_or(self.position);
        self.complete = complete;
        if now - self.marked >= FLOOR_LAG {
            self.floor = self.floor.max(self.mark);
            self.mark = self.mark.max(self.position);
            self.marked = now;
        }
    }

    /// Reads row `id` again before anything above it.
    pub fn rewind_to(&mut self, id: i64) {
        self.position = self.position.min(id - 1);
        self.floor = self.floor.min(id - 1);
        self.mark = self.mark.min(id - 1);
        self.rewound = true;
    }

    /// Whether `id` lies where only a sweep looks.
    pub fn is_below_floor(&self, id: i64) -> bool {
        id <= self.floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one whose first sweep is latest.
    const LAST: Shard = Shard(15);

    #[test]
    fn shards_are_swept_one_after_the_other_also_after_a_long_silence() {
        let start = Instant::now();
        let mut cursors: Vec<Cursor> = Shard::all()
            .map(|shard| Cursor::at_zero(shard, start))
            .collect();
        let mut sweeps = |now: Instant| {
            let swept = |cursor: &mut Cursor| {
                cursor.ask(now);
                let was_sweep = cursor.position == 0;
                cursor.advance(Some(1_000), true, now);
                was_sweep
            };
            cursors.iter_mut().map(swept).filter(|swept| *swept).count()
        };
        let step = SWEEP_EVERY / 32;
        assert_eq!(sweeps(start), 16, "at first all are read from 0");
        // Until the floor rises, a second or two after the start, every pass begins at 0.
        for n in 1..=64 {
            sweeps(start + step * n);
        }
        let silent_until = start + SWEEP_EVERY * 5;
        assert_eq!(sweeps(silent_until), 16, "all are overdue");
        for n in 1..=160 {
            let count = sweeps(silent_until + step * n);
            assert!(count <= 1, "{count} sweeps in one read");
        }
    }

    #[test]
    fn a_pass_goes_forward_and_the_next_begins_at_the_floor() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut cursor = Cursor::at_zero(LAST, start);
        assert_eq!(cursor.ask(at(0)), 0);
        cursor.advance(Some(100), false, at(1));
        assert_eq!(cursor.ask(at(6)), 100, "an unfinished pass goes on");
        cursor.advance(Some(150), true, at(7));
        assert_eq!(cursor.ask(at(8)), 0, "a new pass");
        cursor.advance(Some(200), true, at(1_000));
        assert_eq!(
            cursor.ask(at(1_001)),
            0,
            "the floor lags by up to two marks"
        );
        cursor.advance(Some(300), true, at(1_999));
        cursor.ask(at(1_999));
        cursor.advance(Some(300), true, at(2_000));
        assert_eq!(cursor.ask(at(2_001)), 0, "a sweep");
        cursor.advance(Some(300), true, at(2_002));
        assert_eq!(cursor.ask(at(2_010)), 200, "the floor");
        assert!(cursor.is_below_floor(200) && !cursor.is_below_floor(201));
    }

    #[test]
    fn a_read_that_was_under_way_does_not_undo_a_rewind() {
        let start = Instant::now();
        let mut cursor = Cursor::at_zero(LAST, start);
        cursor.ask(start);
        cursor.advance(Some(100), false, start);
        assert_eq!(cursor.ask(start), 100);
        cursor.rewind_to(40);
        cursor.advance(Some(200), true, start);
        assert_eq!(cursor.ask(start), 39);
    }
}
