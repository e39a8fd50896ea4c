//! The jobs of one kind of writer.

use std::collections::HashSet;

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::Job;
use crate::store::OrderLock;

/// Where a writer takes its jobs from, and how it reads their orders.
#[derive(Debug)]
pub(super) struct WriterQueue {
    jobs: Mutex<mpsc::Receiver<Job>>,
    batch_max: usize,
    pub(super) lock: OrderLock,
    stop: CancellationToken,
}

impl WriterQueue {
    pub(super) fn new(
        jobs: mpsc::Receiver<Job>,
        batch_max: usize,
        lock: OrderLock,
        stop: CancellationToken,
    ) -> Self {
        Self {
            jobs: Mutex::new(jobs),
            batch_max,
            lock,
            stop,
        }
    }

    /// All waiting jobs, up to a batch; empty once the queue is closed and drained.
    pub(super) async fn take_waiting(&self) -> Vec<Job> {
        let mut queue = self.jobs.lock().await;
        let mut jobs = Vec::with_capacity(self.batch_max);
        tokio::select! {
            biased;
            _ = queue.recv_many(&mut jobs, self.batch_max) => {}
            () = self.stop.cancelled() => {
                queue.close();
                queue.recv_many(&mut jobs, self.batch_max).await;
            }
        }
        jobs
    }
}

/// Splits jobs so that no group contains an order or an idempotency key twice. A repeated one goes to the next group.
pub(super) fn distinct_groups(jobs: Vec<Job>) -> Vec<Vec<Job>> {
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
