//! Where the next read of one shard begins.
//!
//! A pass reads forward from `position`. Auto-increment order is not commit order, so rows may appear below it later:
//! - The next pass finds rows that commit a little late. It begins at the *floor*: the position of one to two seconds
//!   ago.
//! - A *sweep* from 0 finds rows that commit below the floor. It passes over rows that are held back (module `held`).
//!
//! Delete-marked rows make a scan from 0 slow. That is why the floor exists, and why the shards are swept one after the
//! other, so that no read sweeps them all. The cursor does not decide the order of one return's events: module
//! `predecessor` does.

use std::time::{Duration, Instant};

use shared::domain::ids::Shard;

use crate::held::HeldRows;

/// The floor is at least this much older than the position: longer than almost every transaction.
const FLOOR_LAG: Duration = Duration::from_secs(1);
/// A row that commits below the floor is found within this time.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// A sweep counts the held rows: with this many its period doubles, with twice as many it triples.
const HELD_ROWS_PER_SWEEP: u64 = 50_000;
/// The shortest time between the starts of two passes: each pass reads the rows in flight again.
const PASS_EVERY: Duration = Duration::from_millis(5);
/// The same while rows are held, because each pass reads young held rows again.
const PASS_EVERY_WHILE_HOLDING: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Cursor {
    position: i64,
    floor: i64,
    /// The next floor: the position at `noted_at`.
    next_floor: i64,
    noted_at: Instant,
    /// The current pass has read to the end of the shard.
    complete: bool,
    pass_begun: Instant,
    sweep_at: Instant,
    /// The cursor moved back during the current read, so the result of that read must not move it forward.
    rewound: bool,
    pass_every: Duration,
}

/// How a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    /// The id after which it starts.
    pub(crate) after: i64,
    pub(crate) is_sweep: bool,
}

impl Cursor {
    pub(crate) fn at_zero(shard: Shard, now: Instant) -> Self {
        let place = u32::from(shard.0) + 1;
        Self {
            position: 0,
            floor: 0,
            next_floor: 0,
            noted_at: now,
            complete: false,
            pass_begun: now,
            sweep_at: now + SWEEP_EVERY * place / u32::from(Shard::COUNT),
            rewound: false,
            pass_every: PASS_EVERY,
        }
    }

    /// Begins a read above the `held` rows. Starts a new pass or a sweep when one is due.
    pub(crate) fn begin_read(&mut self, now: Instant, held: &HeldRows) -> Begun {
        let is_sweep = now >= self.sweep_at;
        if is_sweep {
            self.position = 0;
            self.pass_begun = now;
            self.pass_every = PASS_EVERY;
            let periods = 1 + held.rows() / HELD_ROWS_PER_SWEEP;
            let period = SWEEP_EVERY * u32::try_from(periods).unwrap_or(u32::MAX);
            // In fixed steps, so that the sweeps of different shards stay apart after a long idle time.
            while now >= self.sweep_at {
                self.sweep_at += period;
            }
        } else if self.complete && now - self.pass_begun >= self.pass_every {
            self.position = self.floor;
            self.pass_begun = now;
        }
        self.position = self.position.max(held.up_to());
        self.complete = false;
        self.rewound = false;
        Begun {
            after: self.position,
            is_sweep,
        }
    }

    /// The current read has returned rows that are held.
    pub(crate) fn note_held(&mut self) {
        self.pass_every = PASS_EVERY_WHILE_HOLDING;
    }

    /// Takes the result of the current read: rows up to `last`; `complete` if the shard has no more.
    pub(crate) fn advance(&mut self, last: Option<i64>, complete: bool, now: Instant) {
        if self.rewound {
            return;
        }
        self.position = last.unwrap_or(self.position);
        self.complete = complete;
        if now - self.noted_at >= FLOOR_LAG {
            self.floor = self.floor.max(self.next_floor);
            self.next_floor = self.next_floor.max(self.position);
            self.noted_at = now;
        }
    }

    /// Makes the next read return row `id` again before any row above it.
    pub(crate) fn rewind_to(&mut self, id: i64) {
        self.position = self.position.min(id - 1);
        self.floor = self.floor.min(id - 1);
        self.next_floor = self.next_floor.min(id - 1);
        self.rewound = true;
    }

    /// Whether only a sweep reads row `id`.
    pub(crate) fn is_below_floor(&self, id: i64) -> bool {
        id <= self.floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(cursor: &mut Cursor, now: Instant) -> i64 {
        cursor.begin_read(now, &HeldRows::default()).after
    }

    /// The shard whose first sweep comes last.
    const LAST: Shard = Shard(15);

    #[test]
    fn shards_are_swept_one_after_the_other_even_after_a_long_idle_time() {
        let start = Instant::now();
        let mut cursors: Vec<Cursor> = Shard::all()
            .map(|shard| Cursor::at_zero(shard, start))
            .collect();
        let mut sweeps = |now: Instant| {
            let swept = |cursor: &mut Cursor| {
                let was_sweep = begin(cursor, now) == 0;
                cursor.advance(Some(1_000), true, now);
                was_sweep
            };
            cursors.iter_mut().map(swept).filter(|swept| *swept).count()
        };
        let step = SWEEP_EVERY / 32;
        assert_eq!(sweeps(start), 16, "each shard is first read from 0");
        // Every pass begins at 0 until the floor rises, one to two seconds after the start.
        for n in 1..=64 {
            sweeps(start + step * n);
        }
        let idle_until = start + SWEEP_EVERY * 5;
        assert_eq!(sweeps(idle_until), 16, "every sweep is overdue");
        for n in 1..=160 {
            let count = sweeps(idle_until + step * n);
            assert!(count <= 1, "{count} sweeps in one read");
        }
    }

    #[test]
    fn a_pass_goes_forward_and_the_next_begins_at_the_floor() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut cursor = Cursor::at_zero(LAST, start);
        assert_eq!(begin(&mut cursor, at(0)), 0);
        cursor.advance(Some(100), false, at(1));
        assert_eq!(
            begin(&mut cursor, at(6)),
            100,
            "an unfinished pass continues"
        );
        cursor.advance(Some(150), true, at(7));
        assert_eq!(begin(&mut cursor, at(8)), 0, "a new pass");
        cursor.advance(Some(200), true, at(1_000));
        assert_eq!(
            begin(&mut cursor, at(1_001)),
            0,
            "the floor lags by up to two seconds"
        );
        cursor.advance(Some(300), true, at(1_999));
        begin(&mut cursor, at(1_999));
        cursor.advance(Some(300), true, at(2_000));
        assert_eq!(begin(&mut cursor, at(2_001)), 0, "a sweep");
        cursor.advance(Some(300), true, at(2_002));
        assert_eq!(begin(&mut cursor, at(2_010)), 200, "the floor");
        assert!(cursor.is_below_floor(200) && !cursor.is_below_floor(201));
    }

    #[test]
    fn the_result_of_a_read_in_progress_does_not_undo_a_rewind() {
        let start = Instant::now();
        let mut cursor = Cursor::at_zero(LAST, start);
        begin(&mut cursor, start);
        cursor.advance(Some(100), false, start);
        assert_eq!(begin(&mut cursor, start), 100);
        cursor.rewind_to(40);
        cursor.advance(Some(200), true, start);
        assert_eq!(begin(&mut cursor, start), 39);
    }

    #[test]
    fn reads_and_sweeps_pass_over_held_rows_and_many_of_them_are_counted_less_often() {
        let start = Instant::now();
        let mut held = HeldRows::default();
        (1..=100_000).for_each(|id| held.add(id, shared::domain::ids::ReturnId(id), "topic"));
        let mut cursor = Cursor::at_zero(LAST, start);
        let first = cursor.begin_read(start + SWEEP_EVERY, &held);
        assert_eq!((first.after, first.is_sweep), (100_000, true));
        let soon = cursor.begin_read(start + SWEEP_EVERY * 3, &held);
        assert_eq!((soon.after, soon.is_sweep), (100_000, false));
        assert!(cursor.begin_read(start + SWEEP_EVERY * 4, &held).is_sweep);
    }
}
