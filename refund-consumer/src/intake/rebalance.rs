//! What happens when partitions are revoked.
//!
//! The callback runs inside `recv`, on a runtime thread, and may not await. It waits a bounded time for the running
//! claim, so that its offsets are stored before librdkafka commits them with the revocation. A claim that takes longer
//! only causes duplicates.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use shared::runtime::kafka::{ClientLog, has_forgotten_brokers};

use crate::lag::Lag;

/// Far below the group's session timeout, so that a rebalance is not held up by a slow database.
const WAIT_FOR_CLAIM: Duration = Duration::from_secs(3);

/// State shared between the poll loop and the client's callbacks.
#[derive(Debug)]
pub(super) struct Rebalancing {
    claim: Arc<Gate>,
    revoked: Mutex<HashSet<(String, i32)>>,
    /// Set when partitions were assigned.
    assigned: AtomicBool,
    /// Set when the client has forgotten all brokers.
    forgot_brokers: AtomicBool,
    rebalances: IntCounter,
    lag: Lag,
    log: ClientLog,
}

/// Whether a claim is running.
#[derive(Debug, Default)]
struct Gate {
    running: Mutex<bool>,
    ended: Condvar,
}

/// A running claim; ends when dropped, also by a panic.
#[derive(Debug)]
pub(super) struct Running(Arc<Gate>);

impl Rebalancing {
    pub(super) fn new(rebalances: IntCounter, lag: Lag, log: ClientLog) -> Self {
        Self {
            claim: Arc::default(),
            revoked: Mutex::default(),
            assigned: AtomicBool::new(false),
            forgot_brokers: AtomicBool::new(false),
            rebalances,
            lag,
            log,
        }
    }

    pub(super) fn has_forgotten_brokers(&self) -> bool {
        self.forgot_brokers.load(Ordering::Relaxed)
    }

    pub(super) fn claim_starts(&self) -> Running {
        *lock(&self.claim.running) = true;
        Running(Arc::clone(&self.claim))
    }

    /// The partitions that were revoked since the last call.
    pub(super) fn take_revoked(&self) -> HashSet<(String, i32)> {
        std::mem::take(&mut lock(&self.revoked))
    }

    /// Whether partitions were assigned since the last call.
    pub(super) fn take_assigned(&self) -> bool {
        self.assigned.swap(false, Ordering::Relaxed)
    }

    pub(super) fn note_assigned(&self) {
        self.assigned.store(true, Ordering::Relaxed);
    }

    fn wait_for_claim(&self) {
        let running = lock(&self.claim.running);
        let waited = self
            .claim
            .ended
            .wait_timeout_while(running, WAIT_FOR_CLAIM, |running| *running);
        if waited.is_ok_and(|(_, timeout)| timeout.timed_out()) {
            tracing::warn!(
                "partitions are given up during a claim; its records will be seen again"
            );
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *lock(&self.0.running) = false;
        self.0.ended.notify_all();
    }
}

impl ClientContext for Rebalancing {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.line(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.log.statistics(&statistics);
        self.lag.statistics(&statistics);
        if has_forgotten_brokers(&statistics) {
            self.forgot_brokers.store(true, Ordering::Relaxed);
        }
    }
}

impl ConsumerContext for Rebalancing {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.rebalances.inc();
        if let Rebalance::Revoke(partitions) = rebalance {
            let elements = partitions.elements();
            let revoked = elements
                .iter()
                .map(|one| (one.topic().to_owned(), one.partition()));
            lock(&self.revoked).extend(revoked);
            self.lag.revoked(partitions);
            // Lets the runtime move its other tasks, the claim among them, to another thread.
            tokio::task::block_in_place(|| self.wait_for_claim());
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            self.lag.assigned(partitions);
            self.note_assigned();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A flag and a set: whole after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
