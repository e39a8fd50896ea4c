//! The writers: tasks that take what waits, file it as one group, and answer.
//!
//! Whoever cannot be decided inside the group (order locked, a duplicate, a conflict that repeats) leaves it for the
//! single path: the same transaction for a slice of one, in a task of its own, with a read that waits for locks.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::eligibility::PolicyArgs;
use shared::event::TopicArgs;
use shared::retry;
use shared::transition::Filed;
use sqlx::MySql;
use sqlx::mysql::MySqlPool;
use sqlx::pool::PoolConnection;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::group::{GroupFailure, Verdict, file_group};
use super::{FilingRequest, Job, Receipt};
use crate::config::Config;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::store::{self, OrderLock};

/// How often one transaction is run again before its requests are told to come back later.
const ATTEMPTS: u32 = 5;
const BACKOFF: Duration = Duration::from_millis(5);
const BACKOFF_CAP: Duration = Duration::from_millis(100);
/// Transactions of the single path in flight; they may wait for locks, so they must not take the whole pool.
const SINGLES: usize = 4;

/// What the writers share.
#[derive(Debug)]
pub(super) struct Writers {
    pool: MySqlPool,
    topics: TopicArgs,
    policy: PolicyArgs,
    metrics: Arc<Metrics>,
    batch_max: usize,
    jobs: Mutex<mpsc::Receiver<Job>>,
    singles: Semaphore,
    single_tasks: TaskTracker,
}

impl Writers {
    pub(super) fn start(
        cfg: &Config,
        pool: MySqlPool,
        metrics: Arc<Metrics>,
        jobs: mpsc::Receiver<Job>,
    ) -> Vec<JoinHandle<()>> {
        let writers = Arc::new(Self {
            pool,
            topics: cfg.topics.clone(),
            policy: cfg.policy.clone(),
            metrics,
            batch_max: usize::from(cfg.filing.filing_batch_max),
            jobs: Mutex::new(jobs),
            singles: Semaphore::new(SINGLES),
            single_tasks: TaskTracker::new(),
        });
        (0..cfg.filing.filing_writers)
            .map(|_| tokio::spawn(Arc::clone(&writers).run()))
            .collect()
    }

    /// One writer, until the queue is closed and empty and every single filing is answered.
    async fn run(self: Arc<Self>) {
        let mut conn = None;
        loop {
            let jobs = self.take_waiting(&mut conn).await;
            if jobs.is_empty() {
                break;
            }
            for group in distinct_groups(jobs) {
                self.file(&mut conn, group).await;
            }
        }
        self.single_tasks.close();
        self.single_tasks.wait().await;
    }

    /// Everything that waits, up to a group; empty when the desk is closed. An idle writer gives its connection
    /// back, a busy one keeps it: each return to the pool costs a ping.
    async fn take_waiting(&self, conn: &mut Option<PoolConnection<MySql>>) -> Vec<Job> {
        let mut queue = self.jobs.lock().await;
        let mut jobs = Vec::with_capacity(self.batch_max);
        if queue.is_empty() {
            *conn = None;
        }
        let taken = queue.recv_many(&mut jobs, self.batch_max).await;
        self.metrics
            .queue_length
            .sub(i64::try_from(taken).expect("at most a group"));
        jobs
    }

    /// Files one group and answers everybody in it.
    async fn file(self: &Arc<Self>, conn: &mut Option<PoolConnection<MySql>>, mut jobs: Vec<Job>) {
        jobs.retain(|job| !job.is_abandoned());
        let mut attempt = 0;
        while !jobs.is_empty() {
            self.metrics.group_size.observe(count_as_f64(jobs.len()));
            let outcome = self.try_group(conn, &jobs, OrderLock::SkipLocked).await;
            jobs = match outcome {
                Ok(verdicts) => return self.answer_all(jobs, verdicts),
                Err(GroupFailure::Duplicate { key, value }) => {
                    self.take_out_duplicate(jobs, &key, &value)
                }
                Err(failure) => {
                    attempt += 1;
                    self.after_failure(jobs, failure, attempt).await
                }
            };
            self.metrics.group_retries.inc();
        }
    }

    /// What is left to run again after a failure other than a duplicate.
    async fn after_failure(
        self: &Arc<Self>,
        jobs: Vec<Job>,
        failure: GroupFailure,
        attempt: u32,
    ) -> Vec<Job> {
        match failure {
            GroupFailure::CommitLost(filed, verdicts) => {
                self.look_up(jobs, &filed, verdicts).await;
                Vec::new()
            }
            GroupFailure::LockConflict | GroupFailure::ConnectionLost if attempt < ATTEMPTS => {
                tokio::time::sleep(retry::full_jitter(attempt, BACKOFF, BACKOFF_CAP)).await;
                jobs
            }
            GroupFailure::LockConflict => {
                jobs.into_iter().for_each(|job| self.file_alone(job));
                Vec::new()
            }
            GroupFailure::ConnectionLost | GroupFailure::Duplicate { .. } => {
                answer_each(jobs, &ApiError::Unavailable);
                Vec::new()
            }
            GroupFailure::Failed(error) => {
                answer_each(jobs, &error);
                Vec::new()
            }
        }
    }

    /// One transaction on the writer's connection, or on a new one if it has none. A connection that failed is
    /// closed, not returned: its state is unknown.
    async fn try_group(
        &self,
        conn: &mut Option<PoolConnection<MySql>>,
        jobs: &[Job],
        lock: OrderLock,
    ) -> Result<Vec<Verdict>, GroupFailure> {
        let mut own = match conn.take() {
            Some(own) => own,
            None => self.pool.acquire().await?,
        };
        let requests: Vec<&FilingRequest> = jobs.iter().map(|job| &job.request).collect();
        let outcome = file_group(&mut own, &self.topics, &self.policy, &requests, lock).await;
        match &outcome {
            Ok(_) | Err(GroupFailure::Duplicate { .. } | GroupFailure::LockConflict) => {
                *conn = Some(own);
            }
            Err(_) => {
                if let Err(error) = own.close().await {
                    tracing::debug!(%error, "a failed connection did not close cleanly");
                }
            }
        }
        outcome
    }

    fn answer_all(self: &Arc<Self>, jobs: Vec<Job>, verdicts: Vec<Verdict>) {
        for (job, verdict) in jobs.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Answer(answer) => job.answer(answer),
                Verdict::OrderNotSeen => self.file_alone(job),
            }
        }
    }

    /// Sends the request that a duplicate error names to the single path, which finds out what is there by now. If
    /// the error names none of ours, all go that way.
    fn take_out_duplicate(
        self: &Arc<Self>,
        mut jobs: Vec<Job>,
        key: &str,
        value: &str,
    ) -> Vec<Job> {
        let guilty = jobs
            .iter()
            .position(|job| is_duplicate(&job.request, key, value));
        match guilty {
            Some(at) => {
                self.file_alone(jobs.swap_remove(at));
                jobs
            }
            None => {
                tracing::warn!(key, "a duplicate key that no request of the group explains");
                jobs.into_iter().for_each(|job| self.file_alone(job));
                Vec::new()
            }
        }
    }

    /// The single path, in a task of its own.
    fn file_alone(self: &Arc<Self>, job: Job) {
        let writers = Arc::clone(self);
        self.single_tasks.spawn(async move {
            let _slot = writers
                .singles
                .acquire()
                .await
                .expect("the semaphore is never closed");
            let mut conn = None;
            let jobs = vec![job];
            let answer = writers.try_alone(&mut conn, &jobs).await;
            jobs.into_iter().for_each(|job| job.answer(answer.clone()));
        });
    }

    async fn try_alone(
        &self,
        conn: &mut Option<PoolConnection<MySql>>,
        jobs: &[Job],
    ) -> Result<Receipt, ApiError> {
        let [job] = jobs else {
            return Err(ApiError::Internal);
        };
        for attempt in 0..ATTEMPTS {
            if job.is_abandoned() || job.deadline <= Instant::now() {
                break;
            }
            match self.try_group(conn, jobs, OrderLock::Wait).await {
                Ok(verdicts) => {
                    return match verdicts.into_iter().next() {
                        Some(Verdict::Answer(answer)) => answer,
                        Some(Verdict::OrderNotSeen) | None => Err(ApiError::Internal),
                    };
                }
                Err(GroupFailure::CommitLost(filed, _)) => {
                    return match filed.first() {
                        Some(filed) => self.find_filed(filed).await,
                        None => Err(ApiError::OutcomeUnknown),
                    };
                }
                Err(GroupFailure::Failed(error)) => return Err(error),
                Err(GroupFailure::Duplicate { .. })
                | Err(GroupFailure::LockConflict)
                | Err(GroupFailure::ConnectionLost) => {
                    self.metrics.group_retries.inc();
                    tokio::time::sleep(retry::full_jitter(attempt, BACKOFF, BACKOFF_CAP)).await;
                }
            }
        }
        Err(ApiError::Unavailable)
    }

    /// After a lost COMMIT: answers each request by what a new connection sees.
    async fn look_up(self: &Arc<Self>, jobs: Vec<Job>, filed: &[Filed], verdicts: Vec<Verdict>) {
        self.metrics.lost_commits.inc();
        for (job, verdict) in jobs.into_iter().zip(verdicts) {
            let ours = filed.iter().find(|row| row.order_id == job.request.order);
            match (verdict, ours) {
                (Verdict::OrderNotSeen, _) => self.file_alone(job),
                (Verdict::Answer(Ok(_)), Some(ours)) => {
                    let answer = self.find_filed(ours).await;
                    job.answer(answer);
                }
                (Verdict::Answer(answer), _) => job.answer(answer),
            }
        }
    }

    /// Found by its first event id: filed. Not found: unknown, because the old COMMIT may still land.
    async fn find_filed(&self, filed: &Filed) -> Result<Receipt, ApiError> {
        match store::find_return_by_first_event(&self.pool, filed.order_id, filed.event_id).await {
            Ok(Some(return_id)) => Ok(Receipt::new(return_id)),
            Ok(None) => Err(ApiError::OutcomeUnknown),
            Err(error) => {
                tracing::warn!(%error, "a lost COMMIT could not be looked up");
                Err(ApiError::OutcomeUnknown)
            }
        }
    }
}

fn answer_each(jobs: Vec<Job>, error: &ApiError) {
    for job in jobs {
        job.answer(Err(error.clone()));
    }
}

/// Whether this request explains MySQL's duplicate error.
fn is_duplicate(request: &FilingRequest, key: &str, value: &str) -> bool {
    match key {
        "returns.one_open_return_per_order" => request.order.to_string() == value,
        "idempotency.PRIMARY" => request
            .key
            .as_ref()
            .is_some_and(|key| key.is_duplicate_entry(value)),
        _ => false,
    }
}

/// Splits jobs so that no group holds an order or an idempotency key twice; a repeat follows in the next group.
fn distinct_groups(jobs: Vec<Job>) -> Vec<Vec<Job>> {
    let mut groups = Vec::with_capacity(1);
    let mut rest = jobs;
    while !rest.is_empty() {
        let (mut orders, mut keys) = (HashSet::new(), HashSet::new());
        let (group, repeats) = rest.into_iter().partition(|job: &Job| {
            let key = job.request.key.as_ref();
            let new_key =
                key.is_none_or(|key| !keys.contains(&(key.actor.clone(), key.key.clone())));
            let new = new_key && !orders.contains(&job.request.order);
            if new {
                orders.insert(job.request.order);
                keys.extend(key.map(|key| (key.actor.clone(), key.key.clone())));
            }
            new
        });
        groups.push(group);
        rest = repeats;
    }
    groups
}

fn count_as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
