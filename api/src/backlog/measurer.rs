//! Counts the outbox for all apis, and reads what was counted.
//!
//! One api at a time may count, under a lease in the row that shows the result; if it ends, another one takes over. It
//! counts in chunks: no statement runs for long, however much waits, and what was counted is known at each moment. On a
//! connection of its own, so that it never takes one from a request or a writer. The sum is no snapshot, and need not be
//! one.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use shared::domain::ids::Shard;
use shared::runtime::db::{Database, DbError};
use sqlx::MySqlConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::{self, Backlog, Chunk, Lease, Measurement, Shown};

/// Between two looks at the row. It is also the shortest pause between two measurements.
pub(super) const PERIOD: Duration = Duration::from_secs(1);
/// A pause is this many times as long as the measurement, of which half to all was CPU: below 5 % of one of the server's
/// cores.
const PAUSE_FACTOR: u32 = 20;
/// The longest pause, however many rows there are and however slow the server is. So the apis notice at most two minutes
/// and one measurement late that a limit is exceeded.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(120);
/// After a measurement that failed.
const FAILED_PAUSE: Duration = Duration::from_secs(10);
/// Rows per statement: 20 to 100 ms.
const CHUNK: u32 = 10_000;
/// For one statement, including the connect. Above the 4 s after which the server ends the count.
const DEADLINE: Duration = Duration::from_secs(5);
/// An api that shows nothing for so long has ended. Above twice the deadline.
const LEASE: Duration = Duration::from_secs(15);
/// Between two shows of what was counted so far.
const SHOW_EVERY: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Measurer {
    db: Database,
    /// This process, in the row.
    me: Uuid,
    /// No measurement before this, because one failed.
    not_before: Instant,
}

impl Measurer {
    pub(super) fn new(db: &Database) -> Self {
        Self {
            db: db.separate(1),
            me: Uuid::now_v7(),
            not_before: Instant::now(),
        }
    }

    /// The row, which is made if there is none.
    pub(super) async fn read(&self) -> Result<Shown, DbError> {
        let me = self.me;
        loop {
            let row = self.use_row(move |conn| Box::pin(store::read_backlog(conn, me)));
            if let Some(shown) = row.await? {
                return Ok(shown);
            }
            self.use_row(|conn| Box::pin(store::make_backlog(conn)))
                .await?;
        }
    }

    /// Measures, if that is due and for us. Hands on what it has counted so far. Returns whether the row shows a new
    /// measurement.
    pub(super) async fn measure(
        &mut self,
        shown: &Shown,
        so_far: impl FnMut(&Backlog),
    ) -> Result<bool, DbError> {
        if Instant::now() < self.not_before || !self.take(shown).await? {
            return Ok(false);
        }
        let (began, mut counted) = (Instant::now(), Backlog::default());
        match self.count(&mut counted, so_far).await {
            Ok(true) => self.show(shown.now, counted, began.elapsed()).await,
            Ok(false) => Ok(false),
            Err(error) => {
                self.not_before = Instant::now() + FAILED_PAUSE;
                // There is at least as much, which may be above a limit.
                self.show_counted(counted).await?;
                Err(error)
            }
        }
    }

    async fn take(&self, shown: &Shown) -> Result<bool, DbError> {
        let (me, seen) = (self.me, shown.lease);
        match next(shown) {
            Next::NotOurs => Ok(false),
            Next::Ours => Ok(true),
            Next::Free => {
                self.use_row(move |conn| Box::pin(store::take_measurement(conn, me, seen, LEASE)))
                    .await
            }
        }
    }

    /// Counts every shard; `false` if another api has taken over.
    async fn count(
        &self,
        counted: &mut Backlog,
        mut so_far: impl FnMut(&Backlog),
    ) -> Result<bool, DbError> {
        let mut shown_at = Instant::now();
        for shard in Shard::all() {
            let mut after = Some(0);
            while let Some(id) = after {
                let chunk = self.chunk(shard, id).await?;
                *counted = counted.plus(chunk.size);
                so_far(counted);
                let full = chunk.size.rows >= u64::from(CHUNK);
                after = chunk.last_id.filter(|_| full);
                if shown_at.elapsed() >= SHOW_EVERY {
                    shown_at = Instant::now();
                    if !self.show_counted(*counted).await? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    async fn chunk(&self, shard: Shard, after: i64) -> Result<Chunk, DbError> {
        let chunk = self.db.run("measure_outbox", DEADLINE, move |conn| {
            Box::pin(async move {
                let chunk = store::measure_shard(conn, shard, after, CHUNK).await;
                chunk.map_err(DbError::from)
            })
        });
        chunk.await
    }

    async fn show_counted(&self, counted: Backlog) -> Result<bool, DbError> {
        let me = self.me;
        self.use_row(move |conn| Box::pin(store::show_counted(conn, me, counted, LEASE)))
            .await
    }

    async fn show(
        &self,
        at: OffsetDateTime,
        backlog: Backlog,
        took: Duration,
    ) -> Result<bool, DbError> {
        let (me, pause) = (self.me, pause_after(took));
        let measured = Measurement { backlog, at, took };
        self.use_row(move |conn| {
            Box::pin(store::show_measurement(conn, me, measured, pause, LEASE))
        })
        .await
    }

    async fn use_row<T, W>(&self, work: W) -> Result<T, DbError>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + 'static,
    {
        let used = self.db.run("outbox_backlog", DEADLINE, move |conn| {
            Box::pin(async move { work(conn).await.map_err(DbError::from) })
        });
        used.await
    }
}

/// The next measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Not due, or another api is at it.
    NotOurs,
    /// Due, and for us.
    Ours,
    /// Due, and for the api that takes it over first.
    Free,
}

fn next(shown: &Shown) -> Next {
    let is_held = is_held(shown.lease, shown.now);
    match (shown.is_due, is_held, shown.lease.is_ours) {
        (true, false, _) => Next::Free,
        (true, true, true) => Next::Ours,
        (true, true, false) | (false, _, _) => Next::NotOurs,
    }
}

/// A lease that lasts for longer than any was given before the database's clock went back.
fn is_held(lease: Lease, now: OffsetDateTime) -> bool {
    now < lease.until && lease.until <= now + PAUSE_MAX + LEASE
}

fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(PAUSE_FACTOR).clamp(PERIOD, PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_taken_when_it_is_due_and_nobody_else_is_at_it() {
        let longest = (PAUSE_MAX + LEASE).as_secs_f64();
        for (is_due, until, is_ours, expected) in [
            (false, 0.0, true, Next::NotOurs),
            (true, 0.0, false, Next::Free),
            (true, 0.0, true, Next::Free),
            (true, 0.1, true, Next::Ours),
            (true, 0.1, false, Next::NotOurs),
            (true, longest, false, Next::NotOurs),
            (true, longest + 0.1, false, Next::Free),
            (true, longest + 0.1, true, Next::Free),
        ] {
            let now = OffsetDateTime::UNIX_EPOCH;
            let shown = Shown {
                measurement: None,
                counted: None,
                is_due,
                lease: Lease {
                    is_ours,
                    until: now + time::Duration::seconds_f64(until),
                },
                now,
            };
            assert_eq!(next(&shown), expected, "{is_due} {until} {is_ours}");
        }
    }

    #[test]
    fn a_costly_measurement_is_followed_by_a_long_pause() {
        let millis = |took| pause_after(Duration::from_millis(took)).as_millis();
        assert_eq!(
            [0, 50, 100, 2_000, 6_000, 35_000].map(millis),
            [1_000, 1_000, 2_000, 40_000, 120_000, 120_000]
        );
    }
}
