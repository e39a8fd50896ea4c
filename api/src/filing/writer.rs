//! The writers: tasks that take what waits, file it as one transaction, and answer.
//!
//! There are two lanes with the same code. The group lane takes up to a batch and never waits for a lock on an order.
//! Whoever it cannot decide (order locked, a duplicate, a conflict) goes to the single lane: a slice of one, read
//! with a lock that waits. Each writer has a connection of its own, so a slow lane never empties the pool.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::domain::eligibility::PolicyArgs;
use shared::domain::event::TopicArgs;
use shared::domain::transition::Filed;
use shared::runtime::db::DbFailure;
use shared::runtime::retry;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection, MySqlConnection};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::group::{GroupFailure, Verdict, file_group};
use super::{FilingRequest, Job};
use crate::backlog::Gate;
use crate::config::Config;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::store::{self, OrderLock};

/// How often one transaction is run again before its requests are told to come back later.
const ATTEMPTS: u32 = 5;
const BACKOFF: Duration = Duration::from_millis(5);
const BACKOFF_CAP: Duration = Duration::from_millis(100);
/// Writers of the single lane. They may wait for locks, so there are a few; their queue is bounded too.
pub(super) const SINGLES: u16 = 8;
/// A transaction that takes longer hangs on a dead connection: a lock wait is at most 5 s.
const TRANSACTION_DEADLINE: Duration = Duration::from_secs(8);
/// A connection that was silent for longer is pinged first; the server cuts it after 30 s.
const PING_AFTER: Duration = Duration::from_secs(2);

/// What the writers of both lanes share.
#[derive(Debug)]
pub(super) struct Writers {
    options: MySqlConnectOptions,
    topics: TopicArgs,
    policy: PolicyArgs,
    metrics: Arc<Metrics>,
    gate: Gate,
    /// The queue of the single lane.
    alone: mpsc::Sender<Job>,
    closing: CancellationToken,
}

/// Where a writer takes its jobs from, and how it reads their orders.
struct Lane {
    jobs: Mutex<mpsc::Receiver<Job>>,
    batch_max: usize,
    lock: OrderLock,
}

/// One writer and its connection, if it has one.
struct Writer {
    shared: Arc<Writers>,
    lane: Arc<Lane>,
    conn: Option<(MySqlConnection, Instant)>,
}

/// Starts both lanes. They end once `closing` is cancelled and their queues are empty.
pub(super) fn start(
    cfg: &Config,
    options: MySqlConnectOptions,
    metrics: Arc<Metrics>,
    gate: Gate,
    jobs: mpsc::Receiver<Job>,
    closing: CancellationToken,
) -> JoinSet<()> {
    let (alone, singles) = mpsc::channel(jobs.max_capacity());
    let shared = Arc::new(Writers {
        options,
        topics: cfg.topics.clone(),
        policy: cfg.policy.clone(),
        metrics,
        gate,
        alone,
        closing,
    });
    let group = Arc::new(Lane {
        jobs: Mutex::new(jobs),
        batch_max: usize::from(cfg.filing.filing_batch_max),
        lock: OrderLock::SkipLocked,
    });
    let single = Arc::new(Lane {
        jobs: Mutex::new(singles),
        batch_max: 1,
        lock: OrderLock::Wait,
    });
    let mut tasks = JoinSet::new();
    let lanes = std::iter::repeat_n(group, usize::from(cfg.filing.filing_writers))
        .chain(std::iter::repeat_n(single, usize::from(SINGLES)));
    for lane in lanes {
        let writer = Writer {
            shared: Arc::clone(&shared),
            lane,
            conn: None,
        };
        tasks.spawn(writer.run());
    }
    tasks
}

impl Writer {
    async fn run(mut self) {
        loop {
            let jobs = self.take_waiting().await;
            if jobs.is_empty() {
                return;
            }
            for group in distinct_groups(jobs) {
                self.file(group).await;
            }
        }
    }

    /// Everything that waits, up to a batch; empty once the lane is closed and drained.
    async fn take_waiting(&mut self) -> Vec<Job> {
        let mut queue = self.lane.jobs.lock().await;
        let mut jobs = Vec::with_capacity(self.lane.batch_max);
        let taken = tokio::select! {
            biased;
            taken = queue.recv_many(&mut jobs, self.lane.batch_max) => taken,
            () = self.shared.closing.cancelled() => {
                queue.close();
                queue.recv_many(&mut jobs, self.lane.batch_max).await
            }
        };
        let taken = i64::try_from(taken).expect("at most a batch");
        self.shared.metrics.queue_length.sub(taken);
        jobs
    }

    /// Files one group and answers everybody in it, or hands them to the single lane.
    async fn file(&mut self, mut jobs: Vec<Job>) {
        for attempt in 1..=ATTEMPTS {
            jobs.retain(|job| !job.is_abandoned());
            if jobs.is_empty() {
                return;
            }
            self.observe_group(jobs.len());
            let last = attempt == ATTEMPTS || jobs.iter().any(Job::is_late);
            match self.run_transaction(&jobs).await {
                Ok(verdicts) => return self.answer_all(jobs, verdicts),
                Err(failure) => jobs = self.after_failure(jobs, failure, last).await,
            }
            self.shared.metrics.group_failures.inc();
            if !jobs.is_empty() {
                tokio::time::sleep(retry::full_jitter(attempt, BACKOFF, BACKOFF_CAP)).await;
            }
        }
    }

    /// What is left to run again on this lane.
    async fn after_failure(
        &mut self,
        mut jobs: Vec<Job>,
        failure: GroupFailure,
        last: bool,
    ) -> Vec<Job> {
        let grouped = self.lane.lock == OrderLock::SkipLocked;
        match failure {
            GroupFailure::CommitLost(filed, verdicts) => {
                self.look_up(jobs, &filed, verdicts).await;
            }
            GroupFailure::TimedOut => answer_each(jobs, &ApiError::OutcomeUnknown),
            // Only the one that the error names has to find out what is there by now; the others go on as a group.
            GroupFailure::Duplicate { key, value } if grouped && !last => {
                let guilty = jobs
                    .iter()
                    .position(|job| is_duplicate(&job.request, &key, &value));
                match guilty {
                    Some(at) => self.file_alone(jobs.swap_remove(at)),
                    None => self.file_each_alone(std::mem::take(&mut jobs)),
                }
                return jobs;
            }
            // One of them holds the others up, or cannot be written at all: each for itself.
            GroupFailure::Duplicate { .. }
            | GroupFailure::LockConflict
            | GroupFailure::Failed(ApiError::Internal)
                if grouped =>
            {
                self.file_each_alone(jobs);
            }
            GroupFailure::Duplicate { .. }
            | GroupFailure::LockConflict
            | GroupFailure::ConnectionLost => {
                if !last {
                    return jobs;
                }
                answer_each(jobs, &ApiError::Unavailable);
            }
            GroupFailure::Failed(error) => answer_each(jobs, &error),
        }
        Vec::new()
    }

    /// One transaction, in a task of its own: only its handle is timed out, because a dropped sqlx future leaves a
    /// connection in an unknown state. A connection that failed or hangs is dropped with its task.
    async fn run_transaction(&mut self, jobs: &[Job]) -> Result<Vec<Verdict>, GroupFailure> {
        let (shared, lock) = (Arc::clone(&self.shared), self.lane.lock);
        let requests: Vec<Arc<FilingRequest>> =
            jobs.iter().map(|job| Arc::clone(&job.request)).collect();
        let own = self.conn.take();
        let mut task = tokio::spawn(async move {
            let mut conn = shared.ready_connection(own).await?;
            let admitted = shared.gate.admit();
            let (topics, policy) = (&shared.topics, &shared.policy);
            let filed = file_group(&mut conn, topics, policy, &requests, lock, admitted).await;
            Ok((conn, filed))
        });
        match tokio::time::timeout(TRANSACTION_DEADLINE, &mut task).await {
            Ok(Ok(Ok((conn, filed)))) => {
                let broken = matches!(
                    filed,
                    Err(GroupFailure::ConnectionLost | GroupFailure::CommitLost(..))
                );
                self.conn = (!broken).then(|| (conn, Instant::now()));
                filed
            }
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(error)) => {
                tracing::error!(%error, "a filing transaction panicked");
                Err(GroupFailure::TimedOut)
            }
            Err(_) => {
                task.abort();
                tracing::warn!("a filing transaction hangs; its connection is dropped");
                Err(GroupFailure::TimedOut)
            }
        }
    }

    fn answer_all(&self, jobs: Vec<Job>, verdicts: Vec<Verdict>) {
        for (job, verdict) in jobs.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Answer(answer) => job.answer(answer),
                Verdict::OrderNotSeen => self.file_alone(job),
            }
        }
    }

    /// Hands a request to the single lane, or refuses it when too many wait there already.
    fn file_alone(&self, job: Job) {
        self.shared.metrics.queue_length.inc();
        if let Err(error) = self.shared.alone.try_send(job) {
            self.shared.metrics.queue_length.dec();
            error.into_inner().answer(Err(ApiError::Busy));
        }
    }

    fn file_each_alone(&self, jobs: Vec<Job>) {
        jobs.into_iter().for_each(|job| self.file_alone(job));
    }

    /// After a lost COMMIT: answers each request by what a new connection sees. Found by its first event id: filed.
    /// Not found: unknown, because the old COMMIT may still land.
    async fn look_up(&self, jobs: Vec<Job>, filed: &[Filed], verdicts: Vec<Verdict>) {
        self.shared.metrics.lost_commits.inc();
        let found = self.shared.find_filed(filed).await;
        for (job, verdict) in jobs.into_iter().zip(verdicts) {
            match verdict {
                Verdict::OrderNotSeen => self.file_alone(job),
                Verdict::Answer(Ok(receipt))
                    if !receipt.replayed && !found.contains(&receipt.return_id.0) =>
                {
                    job.answer(Err(ApiError::OutcomeUnknown));
                }
                Verdict::Answer(answer) => job.answer(answer),
            }
        }
    }

    fn observe_group(&self, size: usize) {
        let size = f64::from(u32::try_from(size).unwrap_or(u32::MAX));
        self.shared.metrics.group_size.observe(size);
    }
}

impl Writers {
    /// The writer's connection if it still answers, or a new one.
    async fn ready_connection(
        &self,
        own: Option<(MySqlConnection, Instant)>,
    ) -> Result<MySqlConnection, GroupFailure> {
        if let Some((mut conn, used)) = own
            && (used.elapsed() < PING_AFTER || conn.ping().await.is_ok())
        {
            return Ok(conn);
        }
        shared::runtime::db::connect(&self.options)
            .await
            .map_err(|error| match DbFailure::of(&error) {
                DbFailure::ConnectionLost => GroupFailure::ConnectionLost,
                _ => GroupFailure::Failed(ApiError::from_database(&error)),
            })
    }

    /// Which of these returns are there, tried until MySQL answers or the transaction deadline has passed.
    async fn find_filed(self: &Arc<Self>, filed: &[Filed]) -> HashSet<i64> {
        let deadline = Instant::now() + TRANSACTION_DEADLINE;
        let mut attempt = 0;
        while Instant::now() < deadline {
            let (shared, filed) = (Arc::clone(self), filed.to_vec());
            let task = tokio::spawn(async move {
                let mut conn = shared::runtime::db::connect(&shared.options).await?;
                store::find_by_first_event(&mut conn, &filed).await
            });
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, task).await {
                Ok(Ok(Ok(found))) => return found,
                Ok(Ok(Err(error))) => {
                    tracing::warn!(%error, "a lost COMMIT could not be looked up")
                }
                Ok(Err(_)) | Err(_) => break,
            }
            attempt += 1;
            tokio::time::sleep(retry::full_jitter(attempt, BACKOFF, BACKOFF_CAP)).await;
        }
        HashSet::new()
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
            let key = key.map(|key| (key.actor.clone(), key.key.clone()));
            let repeats_key = key.as_ref().is_some_and(|key| keys.contains(key));
            let distinct = !repeats_key && !orders.contains(&job.request.order);
            if distinct {
                orders.insert(job.request.order);
                keys.extend(key);
            }
            distinct
        });
        groups.push(group);
        rest = repeats;
    }
    groups
}
