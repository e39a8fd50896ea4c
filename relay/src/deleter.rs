//! Deletes the rows that Kafka has acknowledged, on its own connections, while other rows are read and sent.
//!
//! Keys collect while the workers are busy, so a DELETE grows with the load. Under a low load they collect for a moment,
//! because every DELETE costs the server a commit. A delete by explicit keys is safe at any time, so it needs no lease.

use std::time::{Duration, Instant};

use shared::runtime::db::{Database, DbError};
use shared::runtime::tasks::Backoff;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, WorkMonitor};
use crate::pending::RowKey;
use crate::store::outbox::{self, MAX_DELETE_ROWS};

/// Two, so that one works while the other waits for its commit.
const WORKERS: usize = 2;
/// How long keys wait for more keys.
const LINGER: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(10);
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(20),
    cap: Duration::from_secs(2),
};

/// The pump's side.
#[derive(Debug)]
pub(crate) struct Deleter {
    collected: Vec<RowKey>,
    oldest: Instant,
    workers: Vec<mpsc::UnboundedSender<Vec<RowKey>>>,
    idle: Vec<usize>,
    done: mpsc::UnboundedReceiver<Deleted>,
}

#[derive(Debug)]
struct Deleted {
    worker: usize,
    keys: Vec<RowKey>,
}

impl Deleter {
    /// Returns the pump's side and the workers to run.
    pub(crate) fn new(database: &Database, metrics: &Metrics) -> (Self, Vec<DeleteWorker>) {
        let (report, done) = mpsc::unbounded_channel();
        let worker = |number| {
            let (dispatch, groups) = mpsc::unbounded_channel();
            let worker = DeleteWorker {
                number,
                groups,
                done: report.clone(),
                database: database.separate(1),
                monitor: metrics.monitor("delete", "deleting published rows"),
                metrics: metrics.clone(),
            };
            (dispatch, worker)
        };
        let (dispatch, workers) = (0..WORKERS).map(worker).unzip();
        let deleter = Self {
            collected: Vec::new(),
            oldest: Instant::now(),
            workers: dispatch,
            idle: (0..WORKERS).collect(),
            done,
        };
        (deleter, workers)
    }

    pub(crate) fn add(&mut self, keys: &mut Vec<RowKey>) {
        if self.collected.is_empty() {
            self.oldest = Instant::now();
        }
        self.collected.append(keys);
    }

    /// Gives groups to idle workers: full groups, keys that have waited long enough, or all keys if `at_once`.
    pub(crate) fn dispatch(&mut self, at_once: bool) {
        while !self.collected.is_empty()
            && (at_once
                || self.collected.len() >= MAX_DELETE_ROWS
                || self.oldest.elapsed() >= LINGER)
            && let Some(worker) = self.idle.pop()
        {
            let size = self.collected.len().min(MAX_DELETE_ROWS);
            let mut group: Vec<RowKey> = self.collected.drain(..size).collect();
            // In primary key order: neighbors share pages.
            group.sort_unstable();
            // If the worker has ended, `deleted` returns `None`.
            let _ = self.workers[worker].send(group);
        }
    }

    /// When [`Self::dispatch`] must be called although no event arrives.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waiting = !self.collected.is_empty() && !self.idle.is_empty();
        waiting.then_some(self.oldest + LINGER)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.collected.is_empty() && self.idle.len() == self.workers.len()
    }

    /// Rows that are no longer in the table. `None`: every worker has ended. Cancel-safe.
    pub(crate) async fn deleted(&mut self) -> Option<Vec<RowKey>> {
        let deleted = self.done.recv().await?;
        self.idle.push(deleted.worker);
        Some(deleted.keys)
    }
}

#[derive(Debug)]
pub(crate) struct DeleteWorker {
    number: usize,
    groups: mpsc::UnboundedReceiver<Vec<RowKey>>,
    done: mpsc::UnboundedSender<Deleted>,
    database: Database,
    metrics: Metrics,
    monitor: WorkMonitor,
}

impl DeleteWorker {
    /// Deletes group after group until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(keys)) = stop.run_until_cancelled(self.groups.recv()).await {
            let delete = self.delete_with_retries(&keys);
            if stop.run_until_cancelled(delete).await.is_none() {
                break;
            }
            let worker = self.number;
            if self.done.send(Deleted { worker, keys }).is_err() {
                break;
            }
        }
        self.database.close().await;
    }

    async fn delete_with_retries(&mut self, keys: &[RowKey]) {
        let mut attempt = 0;
        loop {
            let deleted = self.delete(keys.to_vec()).await;
            if let Some(deleted) = self.monitor.note(deleted) {
                self.metrics.deleted_rows.inc_by(deleted);
                let requested = u64::try_from(keys.len()).unwrap_or(u64::MAX);
                // After a lost response the retry finds no rows. That counts, too: it is rare and harmless.
                let missing = requested.saturating_sub(deleted);
                self.metrics.missing_rows.inc_by(missing);
                return;
            }
            tokio::time::sleep(BACKOFF.pause(attempt)).await;
            attempt += 1;
        }
    }

    async fn delete(&self, keys: Vec<RowKey>) -> Result<u64, DbError> {
        let delete = self
            .database
            .run("delete_published", DEADLINE, move |conn| {
                Box::pin(async move { Ok(outbox::delete_published(conn, &keys).await?) })
            });
        delete.await
    }
}
