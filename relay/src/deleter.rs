//! Deletes what Kafka has acknowledged, on connections of its own, beside reading and sending.
//!
//! Keys gather while the workers are busy, so the groups grow with the load; when there is little, they gather for
//! a moment, because every DELETE costs the server a commit. Deleting by explicit keys is safe for anyone at any
//! time, so it needs no lease.

use std::time::{Duration, Instant};

use shared::runtime::retry::full_jitter;
use sqlx::mysql::MySqlConnectOptions;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::pending::RowKey;
use crate::session::Session;
use crate::store::{self, DELETE_GROUP};

/// Two connections: one waits for its commit while the other works.
const WORKERS: usize = 2;
/// How long acknowledged rows wait for company.
const GATHER: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(10);
const RETRY_BASE: Duration = Duration::from_millis(20);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// The pump's end.
#[derive(Debug)]
pub(crate) struct Deleter {
    gathered: Vec<RowKey>,
    since: Instant,
    workers: Vec<mpsc::UnboundedSender<Vec<RowKey>>>,
    idle: Vec<usize>,
    done: mpsc::UnboundedReceiver<Done>,
}

#[derive(Debug)]
struct Done {
    worker: usize,
    keys: Vec<RowKey>,
}

impl Deleter {
    pub(crate) fn spawn(
        options: &MySqlConnectOptions,
        metrics: &Metrics,
        quit: &CancellationToken,
    ) -> Self {
        let (report, done) = mpsc::unbounded_channel();
        let spawn = |number| {
            let (groups, work) = mpsc::unbounded_channel();
            let worker = Worker {
                number,
                session: Session::new(options.clone(), DEADLINE),
                metrics: metrics.clone(),
            };
            tokio::spawn(worker.run(work, report.clone(), quit.clone()));
            groups
        };
        Self {
            gathered: Vec::new(),
            since: Instant::now(),
            workers: (0..WORKERS).map(spawn).collect(),
            idle: (0..WORKERS).collect(),
            done,
        }
    }

    pub(crate) fn add(&mut self, keys: &mut Vec<RowKey>) {
        if self.gathered.is_empty() {
            self.since = Instant::now();
        }
        self.gathered.append(keys);
    }

    /// Gives groups to idle workers: full ones, or what has waited long enough, or everything if `at_once`.
    pub(crate) fn hand_out(&mut self, at_once: bool) {
        while !self.gathered.is_empty()
            && (at_once || self.gathered.len() >= DELETE_GROUP || self.since.elapsed() >= GATHER)
            && let Some(worker) = self.idle.pop()
        {
            let size = self.gathered.len().min(DELETE_GROUP);
            let mut group: Vec<RowKey> = self.gathered.drain(..size).collect();
            // In the order of the primary key: neighbors share pages.
            group.sort_unstable();
            // A worker that is gone never reports, which `deleted` tells.
            let _ = self.workers[worker].send(group);
        }
    }

    /// When [`Self::hand_out`] has something to do although nothing else happens.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waiting = !self.gathered.is_empty() && !self.idle.is_empty();
        waiting.then_some(self.since + GATHER)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.idle.len() == self.workers.len()
    }

    /// Rows that are gone from the table. `None`: every worker is gone. Cancel-safe.
    pub(crate) async fn deleted(&mut self) -> Option<Vec<RowKey>> {
        let done = self.done.recv().await?;
        self.idle.push(done.worker);
        Some(done.keys)
    }
}

struct Worker {
    number: usize,
    session: Session,
    metrics: Metrics,
}

impl Worker {
    async fn run(
        mut self,
        mut work: mpsc::UnboundedReceiver<Vec<RowKey>>,
        report: mpsc::UnboundedSender<Done>,
        quit: CancellationToken,
    ) {
        while let Some(Some(keys)) = quit.run_until_cancelled(work.recv()).await {
            if !self.delete(&keys, &quit).await {
                return;
            }
            let done = Done {
                worker: self.number,
                keys,
            };
            if report.send(done).is_err() {
                break;
            }
        }
        self.session.close().await;
    }

    /// Tries until it is done; `false` if told to quit before.
    async fn delete(&mut self, keys: &[RowKey], quit: &CancellationToken) -> bool {
        let mut attempt = 0;
        loop {
            let group = keys.to_vec();
            let deleted = self
                .session
                .run(move |mut conn| async move {
                    let deleted = store::delete_published(&mut conn, &group).await;
                    (conn, deleted)
                })
                .await;
            match deleted {
                Ok(deleted) => {
                    self.metrics.deleted_rows.inc_by(deleted);
                    let asked = u64::try_from(keys.len()).unwrap_or(u64::MAX);
                    // After a lost answer the second try finds none: counted too, rarely and harmlessly.
                    self.metrics
                        .missing_rows
                        .inc_by(asked.saturating_sub(deleted));
                    return true;
                }
                Err(error) => self.metrics.database_error("delete", &error),
            }
            let pause = tokio::time::sleep(full_jitter(attempt, RETRY_BASE, RETRY_CAP));
            if quit.run_until_cancelled(pause).await.is_none() {
                return false;
            }
            attempt += 1;
        }
    }
}
