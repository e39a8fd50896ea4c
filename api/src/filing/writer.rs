//! The writers: tasks that take waiting filings, write them in one transaction, and finish them.
//!
//! There are two queues with the same code. Writers of the group queue take up to a batch and never wait for the lock of
//! an order. A request that a group cannot decide (its order is locked, a duplicate, a conflict) goes to the isolated
//! queue, whose writers take one request at a time and wait for locks. Writers have connections of their own, so a
//! locked order takes no connection from other requests.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::domain::transition::{Filed, TransitionError};
use shared::runtime::db::{Database, DbError, DbFailure, Retry, TransactionError};
use shared::runtime::killpoint::kill_point;
use shared::runtime::tasks::{Backoff, Rarely, Stage, chain};
use shared::runtime::trace::{BatchSpan, names};
use tokio::sync::mpsc;

use super::group::{self, FilingOutcome, GroupError, Written};
use super::writer_queue::{WriterQueue, distinct_groups};
use super::{Filing, FilingRequest, Job};
use crate::error::ApiError;
use crate::store::{self, OrderLock};

/// How often one transaction runs before its requests get 503.
const ATTEMPTS: u32 = 5;
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(5),
    cap: Duration::from_millis(100),
};
/// Writers of the isolated queue. They may wait for locks, so there are several; their queue is bounded too.
const ISOLATED_WRITERS: u16 = 8;
/// Longer than a lock wait, which is at most 5 s.
const TRANSACTION_DEADLINE: Duration = Duration::from_secs(8);

/// What the writers of both queues share.
#[derive(Debug)]
struct Writers {
    filing: Arc<Filing>,
    db: Database,
    isolated: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Writer {
    shared: Arc<Writers>,
    queue: Arc<WriterQueue>,
}

/// Starts the writers of both queues. They end when `stage` stops and their queues are empty.
pub(super) fn start(filing: Arc<Filing>, jobs: mpsc::Receiver<Job>, stage: &mut Stage) {
    let (isolated, isolated_jobs) = mpsc::channel(jobs.max_capacity());
    let queue =
        |jobs, batch_max, lock| Arc::new(WriterQueue::new(jobs, batch_max, lock, stage.stop()));
    let writers = filing.args.filing_writers;
    let batch_max = usize::from(filing.args.filing_batch_max);
    let group_queue = queue(jobs, batch_max, OrderLock::SkipLocked);
    let isolated_queue = queue(isolated_jobs, 1, OrderLock::Wait);
    let shared = Arc::new(Writers {
        db: filing.db.separate(u32::from(writers + ISOLATED_WRITERS)),
        filing,
        isolated,
    });
    let queues = std::iter::repeat_n(group_queue, usize::from(writers)).chain(std::iter::repeat_n(
        isolated_queue,
        usize::from(ISOLATED_WRITERS),
    ));
    for queue in queues {
        let shared = Arc::clone(&shared);
        stage.spawn("filing writer", Writer { shared, queue }.run());
    }
}

impl Writer {
    async fn run(self) {
        loop {
            let jobs = self.queue.take_waiting().await;
            if jobs.is_empty() {
                return;
            }
            let taken = i64::try_from(jobs.len()).expect("at most a batch");
            self.shared.filing.metrics.filing.queue_length.sub(taken);
            for group in distinct_groups(jobs) {
                self.file(group).await;
            }
        }
    }

    /// Files one group and finishes each of its jobs, or hands it to the isolated queue.
    async fn file(&self, mut jobs: Vec<Job>) {
        let metrics = &self.shared.filing.metrics.filing;
        for attempt in 1..=ATTEMPTS {
            jobs.retain(|job| !job.is_abandoned());
            if jobs.is_empty() {
                return;
            }
            let size = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
            metrics.group_size.observe(f64::from(size));
            let last = attempt == ATTEMPTS || jobs.iter().any(Job::is_late);
            jobs = match self.transact(&jobs).await {
                Ok(written) => {
                    kill_point("api.after_commit");
                    return self.finish_all(jobs, written.outcomes);
                }
                Err(TransactionError::CommitUnknown { value, .. }) if value.filed.is_empty() => {
                    return self.finish_all(jobs, value.outcomes);
                }
                Err(TransactionError::CommitUnknown { value, cause }) => {
                    self.after_lost_commit(jobs, value, &cause).await;
                    Vec::new()
                }
                Err(TransactionError::Conflict(error) | TransactionError::Refused(error)) => {
                    self.after_error(jobs, error, last)
                }
            };
            metrics.group_failures.inc();
            if !jobs.is_empty() {
                tokio::time::sleep(BACKOFF.pause(attempt)).await;
            }
        }
    }

    async fn transact(
        &self,
        jobs: &[Job],
    ) -> Result<Written, TransactionError<Written, GroupError>> {
        let requests: Arc<[_]> = jobs.iter().map(|job| Arc::clone(&job.request)).collect();
        let (filing, lock) = (Arc::clone(&self.shared.filing), self.queue.lock);
        let db = &self.shared.db;
        let transaction = db.transaction(
            "file_returns",
            TRANSACTION_DEADLINE,
            Retry::NEVER,
            move |conn| {
                let (filing, requests) = (Arc::clone(&filing), Arc::clone(&requests));
                Box::pin(async move { group::write(conn, &filing, &requests, lock).await })
            },
        );
        let spans = jobs.iter().map(|job| &job.span);
        BatchSpan::of_spans("filing.batch", names::BATCH_SIZE, spans)
            .scope_of_statement(transaction)
            .await
    }

    /// Decides what follows a rollback. Returns the jobs that this writer runs again.
    fn after_error(&self, mut jobs: Vec<Job>, error: GroupError, last: bool) -> Vec<Job> {
        let grouped = self.queue.lock == OrderLock::SkipLocked;
        match failure(&error) {
            // The deadline has used up the time of the requests.
            None => finish_each(jobs, &ApiError::OutcomeUnknown),
            // Only the request that the error names has to be read again; the others go on as a group.
            Some(DbFailure::Duplicate { key, value }) if grouped && !last => {
                let mut named = jobs.iter();
                match named.position(|job| is_duplicate(&job.request, &key, &value)) {
                    Some(at) => self.isolate(jobs.swap_remove(at)),
                    None => self.isolate_each(std::mem::take(&mut jobs)),
                }
                return jobs;
            }
            // One of the requests delays the others, or cannot be written at all.
            Some(DbFailure::Duplicate { .. } | DbFailure::LockConflict | DbFailure::Values)
                if grouped =>
            {
                tracing::debug!(error = chain(&error), "a group is filed one by one");
                self.isolate_each(jobs);
            }
            Some(
                DbFailure::Duplicate { .. } | DbFailure::LockConflict | DbFailure::ConnectionLost,
            ) => {
                if !last {
                    return jobs;
                }
                finish_each(jobs, &ApiError::Unavailable);
            }
            Some(
                DbFailure::ReadOnly
                | DbFailure::Denied
                | DbFailure::Unavailable
                | DbFailure::Values
                | DbFailure::Statement,
            ) => finish_each(jobs, &error.into()),
        }
        Vec::new()
    }

    fn finish_all(&self, jobs: Vec<Job>, outcomes: Vec<FilingOutcome>) {
        for (job, outcome) in jobs.into_iter().zip(outcomes) {
            match outcome {
                FilingOutcome::Done(result) => job.finish(result),
                FilingOutcome::OrderNotSeen => self.isolate(job),
            }
        }
    }

    /// Hands a request to the isolated queue, or refuses it if that queue is full.
    fn isolate(&self, job: Job) {
        let queue_length = &self.shared.filing.metrics.filing.queue_length;
        queue_length.inc();
        if let Err(error) = self.shared.isolated.try_send(job) {
            queue_length.dec();
            error.into_inner().finish(Err(ApiError::Busy));
        }
    }

    fn isolate_each(&self, jobs: Vec<Job>) {
        jobs.into_iter().for_each(|job| self.isolate(job));
    }

    /// Looks the rows up on another connection. A return that is found by its first event id is filed. One that is not
    /// found has an unknown outcome, because the old COMMIT may still take effect.
    async fn after_lost_commit(&self, jobs: Vec<Job>, written: Written, cause: &DbError) {
        self.shared.filing.metrics.filing.lost_commits.inc();
        if matches!(cause, DbError::DeadlinePassed(_)) {
            // No time is left to look it up.
            return finish_each(jobs, &ApiError::OutcomeUnknown);
        }
        let found = self.shared.find_filed(&written.filed).await;
        let is_unknown = |outcome: &FilingOutcome| {
            matches!(outcome, FilingOutcome::Done(Ok(receipt))
                if !receipt.replayed && !found.contains(&receipt.return_id.0))
        };
        let mut outcomes = written.outcomes;
        for outcome in outcomes.iter_mut().filter(|outcome| is_unknown(outcome)) {
            *outcome = FilingOutcome::Done(Err(ApiError::OutcomeUnknown));
        }
        self.finish_all(jobs, outcomes);
    }
}

impl Writers {
    /// The ids of the returns that exist, tried until MySQL responds or the transaction deadline has passed.
    async fn find_filed(&self, filed: &[Filed]) -> HashSet<i64> {
        let deadline = Instant::now() + TRANSACTION_DEADLINE;
        let mut attempt = 0;
        while Instant::now() < deadline {
            let filed = filed.to_vec();
            let left = deadline.saturating_duration_since(Instant::now());
            let found = self.db.run("find_filed", left, move |conn| {
                Box::pin(async move {
                    let found = store::find_by_first_event(conn, &filed).await;
                    found.map_err(DbError::from)
                })
            });
            match found.await {
                Ok(found) => return found,
                Err(error) => {
                    static LOST: Rarely = Rarely::new();
                    if let Some(left_out) = LOST.due() {
                        let error = chain(&error);
                        tracing::warn!(error, left_out, "a lost COMMIT could not be looked up");
                    }
                }
            }
            attempt += 1;
            tokio::time::sleep(BACKOFF.pause(attempt)).await;
        }
        HashSet::new()
    }
}

/// What failed; `None` if the transaction ran out of time or panicked.
fn failure(error: &GroupError) -> Option<DbFailure> {
    match error {
        GroupError::Database(DbError::DeadlinePassed(_) | DbError::Panicked) => None,
        error => Some(DbFailure::in_chain(error).unwrap_or(DbFailure::Values)),
    }
}

impl From<GroupError> for ApiError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::Database(error) => error.into(),
            GroupError::Transition(TransitionError::Database(error)) => DbError::from(error).into(),
            GroupError::Transition(_) => {
                tracing::error!(error = chain(&error), "a filing could not be written");
                Self::Internal
            }
        }
    }
}

fn finish_each(jobs: Vec<Job>, error: &ApiError) {
    for job in jobs {
        job.finish(Err(error.clone()));
    }
}

/// Whether this request caused MySQL's duplicate error.
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
