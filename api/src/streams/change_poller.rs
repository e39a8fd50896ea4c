//! Polls the watched returns for changes, on a connection of its own.
//!
//! While no return is watched, it does not poll. While MySQL is away, streams stay open and get the missed events
//! afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::domain::ids::ReturnId;
use shared::runtime::db::{Database, DbError};
use shared::runtime::tasks::{Backoff, Outage, every};
use tokio_util::sync::CancellationToken;

use super::{EVENTS_IN_MEMORY, Hub};
use crate::metrics::Metrics;
use crate::store;

/// A person does not notice this delay.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The pause is this many times as long as the poll: at most a fifth of one of the server's cores for every api process.
const PAUSE_FACTOR: u32 = 4;
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// For one statement, including the connect.
const DEADLINE: Duration = Duration::from_secs(3);
/// After failures. The cap is also the longest time until streams notice the end of an outage.
const BACKOFF: Backoff = Backoff {
    base: PAUSE_MIN,
    cap: Duration::from_secs(2),
};
/// Returns in one statement: 60 KB of parameter, and no statement runs for long.
const CHUNK: usize = 5_000;

#[derive(Debug)]
pub(crate) struct ChangePoller {
    db: Database,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    failures: u32,
    outage: Outage,
}

impl ChangePoller {
    pub(super) fn new(db: &Database, hub: Arc<Hub>, metrics: Arc<Metrics>) -> Self {
        Self {
            db: db.separate(1),
            hub,
            metrics,
            failures: 0,
            outage: Outage::new("polling the watched returns"),
        }
    }

    /// Polls and delivers until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut turns = every(PAUSE_MIN, &stop);
        while turns.next().await {
            let pause = stop.run_until_cancelled(self.poll()).await;
            turns.pause_next(pause.unwrap_or_default());
        }
    }

    /// Returns the pause until the next poll.
    async fn poll(&mut self) -> Duration {
        let watched = self.hub.watched();
        let count = i64::try_from(watched.len()).unwrap_or(i64::MAX);
        self.metrics.streams.watched_returns.set(count);
        if watched.is_empty() {
            // The server would cut an idle connection, and count it as aborted.
            self.db.close().await;
            self.hub.begun.notified().await;
            return Duration::ZERO;
        }
        let began = Instant::now();
        for chunk in watched.chunks(CHUNK) {
            if let Err(error) = self.poll_chunk(chunk.to_vec()).await {
                self.metrics.streams.poll_failures.inc();
                self.outage.failed(&error);
                self.failures = self.failures.saturating_add(1);
                // The known seqs stay, so the next successful poll finds all changes of the meantime.
                return PAUSE_MIN + BACKOFF.pause(self.failures);
            }
        }
        self.outage.ended();
        self.failures = 0;
        let took = began.elapsed();
        self.metrics
            .streams
            .poll_seconds
            .observe(took.as_secs_f64());
        pause_after(took)
    }

    async fn poll_chunk(&self, known: Vec<(ReturnId, i32)>) -> Result<(), DbError> {
        let changes = self.db.run("poll_changes", DEADLINE, move |conn| {
            Box::pin(async move {
                let changes = store::read_changes(conn, &known, EVENTS_IN_MEMORY).await;
                changes.map_err(DbError::from)
            })
        });
        let events = changes.await?.into_iter();
        self.hub
            .publish(events.map(|(id, row)| (id, row.into())).collect());
        Ok(())
    }
}

fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(PAUSE_FACTOR)
        .clamp(PAUSE_MIN, PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_costly_poll_is_followed_by_a_long_pause() {
        let millis = |took| pause_after(Duration::from_millis(took)).as_millis();
        assert_eq!([0, 50, 100, 3_000].map(millis), [200, 200, 400, 2_000]);
    }
}
