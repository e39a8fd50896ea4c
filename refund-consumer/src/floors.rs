//! Where the scans begin to read.
//!
//! A row that moves on leaves a delete mark in each index, and while any session keeps an old snapshot open no mark is
//! purged. A scan from the beginning of its range then walks over the marks of everything that was settled since: 0.1 to
//! 0.4 s for a million returns, each time. So each range has a floor, at most the oldest key that was there. The gauges raise
//! it every few seconds. The sweep reads each range from its very beginning and sets the floor again, because an older
//! key can appear: a clock is set back, or a transaction that began long ago commits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::domain::refund::{AttemptState, OverdueRechecks, overdue_rechecks};
use shared::runtime::db::Database;
use shared::runtime::tasks::{Outage, every};
use time::OffsetDateTime;
use time::macros::datetime;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::foreign::ForeignReport;
use crate::gateway::GatewayName;
use crate::metrics::Metrics;
use crate::store::{self, Oldest, Range};

/// The longest time between two sweeps, and usually the time.
const SWEEP_PERIOD_MAX: Duration = Duration::from_secs(60);
/// A sweep in so many scans, if these are more frequent than usual.
const SCANS_PER_SWEEP: u32 = 60;
/// Of one range: about 100 million delete marks.
const SWEEP_DEADLINE: Duration = Duration::from_secs(30);
/// A floor stays this far behind the present: above the deadline of every transaction of ours, which may commit a key
/// that is as old as its beginning.
const LATE_COMMIT: Duration = Duration::from_secs(60);
/// Before every key.
pub const BEGINNING: OffsetDateTime = datetime!(2000-01-01 0:00 UTC);

/// The floor of each range. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Floors(Arc<Mutex<HashMap<Range, OffsetDateTime>>>);

impl Floors {
    /// Of this range.
    pub fn of(&self, range: Range) -> OffsetDateTime {
        self.lock().get(&range).copied().unwrap_or(BEGINNING)
    }

    /// After a reading that began at the floor. It does not count if a sweep has found an older key meanwhile.
    pub fn raise(&self, read: &Oldest) {
        let mut floors = self.lock();
        let floor = floors.entry(read.range).or_insert(BEGINNING);
        if *floor == read.from {
            *floor = floor_after(read);
        }
    }

    /// After a reading of the whole range.
    pub fn set(&self, read: &Oldest) {
        self.lock().insert(read.range, floor_after(read));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Range, OffsetDateTime>> {
        // Every change is one call on the map, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn floor_after(read: &Oldest) -> OffsetDateTime {
    let late = read.now - LATE_COMMIT;
    read.key.map_or(late, |key| key.min(late))
}

/// Reads every range from its beginning, and counts what no scan of ours may take or has taken in time.
#[derive(Debug)]
pub struct Sweep {
    pub db: Database,
    pub gateway: GatewayName,
    pub floors: Floors,
    pub foreign: ForeignReport,
    pub metrics: Metrics,
}

impl Sweep {
    /// Sweeps until `stop`. A range that cannot be read in time keeps its floor.
    pub async fn run(mut self, scan_interval: Duration, stop: CancellationToken) {
        let period = (scan_interval * SCANS_PER_SWEEP).min(SWEEP_PERIOD_MAX);
        let (mut rounds, mut outage) =
            (every(period, &stop), Outage::new("the sweep of the scans"));
        while rounds.next().await {
            match stop.run_until_cancelled(self.sweep()).await {
                None => return,
                Some(None) => outage.ended(),
                Some(Some(error)) => {
                    let failures = &self.metrics.work.transient_failures;
                    failures.with_label_values(&["sweep"]).inc();
                    outage.failed(&error);
                }
            }
        }
    }

    /// The last failure, if something could not be read.
    async fn sweep(&mut self) -> Option<Error> {
        let mut failure = None;
        for range in Range::all() {
            let name = self.gateway.clone();
            let oldest = self.db.run("sweep", SWEEP_DEADLINE, move |conn| {
                Box::pin(async move { store::oldest(conn, range, BEGINNING, name.as_str()).await })
            });
            match oldest.await {
                Ok(read) => self.floors.set(&read),
                Err(error) => failure = Some(error),
            }
        }
        let name = self.gateway.clone();
        let foreign = self
            .db
            .run("foreign_attempts", SWEEP_DEADLINE, move |conn| {
                Box::pin(async move { store::foreign_attempts(conn, name.as_str()).await })
            });
        match foreign.await {
            Ok(found) => self.foreign.note(&found),
            Err(error) => failure = Some(error),
        }
        let waiting = self.db.run("count_attempts", SWEEP_DEADLINE, |conn| {
            Box::pin(store::count_attempts(conn))
        });
        match waiting.await {
            Ok(counts) => self.show_attempts(&counts),
            Err(error) => failure = Some(error),
        }
        let overdue = self.db.run("overdue_rechecks", SWEEP_DEADLINE, |conn| {
            Box::pin(async move { Ok::<_, Error>(overdue_rechecks(conn).await?) })
        });
        match overdue.await {
            Ok(found) => self.show(&found),
            Err(error) => failure = Some(error),
        }
        failure
    }

    fn show_attempts(&self, counts: &[(AttemptState, i64)]) {
        let gauges = &self.metrics.rows.attempts;
        for (state, attempts) in counts {
            gauges.with_label_values(&[state.as_str()]).set(*attempts);
        }
    }

    fn show(&self, overdue: &[OverdueRechecks]) {
        let oldest = overdue.iter().map(|one| one.oldest_secs).max();
        let oldest = oldest.and_then(|secs| secs.try_into().ok()).unwrap_or(0);
        self.metrics
            .rows
            .oldest_recheck
            .set(Duration::from_secs(oldest));
        let attempts = overdue.iter().map(|one| one.attempts).sum();
        self.metrics.rows.overdue_rechecks.set(attempts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Range = Range::Attempts(AttemptState::Sent);
    const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);

    fn read(from: OffsetDateTime, key: Option<OffsetDateTime>) -> Oldest {
        Oldest {
            range: RANGE,
            from,
            key,
            now: NOW,
        }
    }

    #[test]
    fn a_floor_is_at_most_the_oldest_key_and_behind_the_present() {
        let late = NOW - LATE_COMMIT;
        let hour_ago = NOW - time::Duration::HOUR;
        for (key, floor) in [
            (None, late),
            (Some(hour_ago), hour_ago),
            (Some(late), late),
            (Some(NOW), late),
            (Some(NOW + time::Duration::DAY), late),
        ] {
            assert_eq!(floor_after(&read(BEGINNING, key)), floor, "{key:?}");
        }
    }

    #[test]
    fn p6_a_reading_from_above_an_older_key_does_not_raise_the_floor_that_the_sweep_lowered() {
        let (floors, day_ago) = (Floors::default(), NOW - time::Duration::DAY);
        let hour_ago = NOW - time::Duration::HOUR;
        assert_eq!(floors.of(RANGE), BEGINNING);
        floors.raise(&read(BEGINNING, Some(hour_ago)));
        assert_eq!(floors.of(RANGE), hour_ago);
        let began_before = read(hour_ago, None);
        floors.set(&read(BEGINNING, Some(day_ago)));
        floors.raise(&began_before);
        assert_eq!(floors.of(RANGE), day_ago);
        floors.raise(&read(day_ago, None));
        assert_eq!(floors.of(RANGE), NOW - LATE_COMMIT);
    }
}
