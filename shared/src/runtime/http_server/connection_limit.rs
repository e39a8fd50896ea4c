//! The connection limit: at the limit, a new connection evicts the one that has been idle longest.
//!
//! Must stay true: a new connection never waits while another one is idle. So a client that opens many connections and
//! sends nothing, or half a request head, loses them to clients that send requests. The cost: a client that reuses
//! connections may find one closed, as after any idle timeout, only sooner.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::metrics::ConnectionMetrics;

/// How long an evicted connection may take to close before the next one is evicted too.
const EVICTION_TIMEOUT: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct ConnectionLimit {
    free: Arc<Semaphore>,
    idle: Mutex<IdleConnections>,
    /// Notified when a connection becomes idle.
    became_idle: Notify,
    metrics: ConnectionMetrics,
}

/// The idle connections in the order in which they became idle. They are numbered, because two times may be equal.
#[derive(Debug, Default)]
struct IdleConnections {
    last: u64,
    by_number: BTreeMap<u64, CancellationToken>,
}

/// The right of one connection to stay open.
#[derive(Debug)]
pub(super) struct Permit {
    limit: Arc<ConnectionLimit>,
    /// The number among the idle connections, and since when this one is idle; `None` during a request. The number 0
    /// means that the connection is already evicted.
    idle: Mutex<Option<(u64, Instant)>>,
    evicted: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// A request from its head to the last frame of its response. When it is dropped, its connection is idle again.
///
/// The last frame is the last that the service produces, not the last that the client reads: the connection of a client
/// that does not read counts as idle.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Permit>);

impl ConnectionLimit {
    pub(super) fn new(max: usize, metrics: ConnectionMetrics) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(max)),
            idle: Mutex::default(),
            became_idle: Notify::new(),
            metrics,
        })
    }

    /// A free permit, or that of the connection that has been idle longest. Waits while every connection has a request.
    pub(super) async fn acquire(self: &Arc<Self>) -> Arc<Permit> {
        let permit = loop {
            tokio::select! {
                biased;
                permit = self.free_permit() => break permit,
                () = self.evict_longest_idle() => {}
            }
            // The evicted connection may have got a request at that moment, or may have a response to deliver: then the
            // next one is evicted.
            if let Ok(permit) = timeout(EVICTION_TIMEOUT, self.free_permit()).await {
                break permit;
            }
        };
        let permit = Arc::new(Permit {
            limit: Arc::clone(self),
            idle: Mutex::new(None),
            evicted: CancellationToken::new(),
            _permit: permit,
        });
        self.metrics.open.inc();
        permit.become_idle();
        permit
    }

    async fn free_permit(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.free).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    async fn evict_longest_idle(&self) {
        loop {
            // `Notify` stores one permit, so a connection that becomes idle before the `await` is not missed.
            if let Some((_, evicted)) = self.idle().by_number.pop_first() {
                // Under the lock: a connection that becomes idle again at this moment must see it.
                evicted.cancel();
                self.metrics.evicted.inc();
                return;
            }
            self.became_idle.notified().await;
        }
    }

    fn idle(&self) -> MutexGuard<'_, IdleConnections> {
        self.idle.lock().expect("no panic under this lock")
    }
}

impl Permit {
    /// Resolves once the connection is evicted.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Since when there has been no request; `None` during a request.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle().map(|(_, since)| since)
    }

    /// Begins a request.
    pub(super) fn begin_request(self: &Arc<Self>) -> InFlight {
        self.leave_idle();
        InFlight(Arc::clone(self))
    }

    fn become_idle(&self) {
        let mut idle = self.idle();
        if self.evicted.is_cancelled() {
            // It closes already and is not evicted twice.
            *idle = Some((0, Instant::now()));
            return;
        }
        let mut connections = self.limit.idle();
        connections.last += 1;
        let number = connections.last;
        connections.by_number.insert(number, self.evicted.clone());
        *idle = Some((number, Instant::now()));
        self.limit.became_idle.notify_one();
    }

    fn leave_idle(&self) {
        if let Some((number, _)) = self.idle().take() {
            self.limit.idle().by_number.remove(&number);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Option<(u64, Instant)>> {
        self.idle.lock().expect("no panic under this lock")
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.leave_idle();
        self.limit.metrics.open.dec();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.become_idle();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_longest_idle_connection_is_evicted() {
        let limit = ConnectionLimit::new(3, ConnectionMetrics::default());
        let first = limit.acquire().await;
        let second = limit.acquire().await;
        let third = limit.acquire().await;
        let request = first.begin_request();
        let mut new = Box::pin(limit.acquire());
        assert!((&mut new).now_or_never().is_none());
        let evicted = [&first, &second, &third].map(|permit| permit.evicted.is_cancelled());
        assert_eq!(evicted, [false, true, false]);
        drop(second);
        let fourth = new.await;
        // The first is idle again, but not for as long as the third.
        drop(request);
        let mut new = Box::pin(limit.acquire());
        assert!((&mut new).now_or_never().is_none());
        let evicted = [&first, &third, &fourth].map(|permit| permit.evicted.is_cancelled());
        assert_eq!(evicted, [false, true, false]);
        let ConnectionMetrics { open, evicted } = &limit.metrics;
        assert_eq!((open.get(), evicted.get()), (3, 2));
    }

    #[tokio::test]
    async fn a_connection_is_not_evicted_twice() {
        let limit = ConnectionLimit::new(1, ConnectionMetrics::default());
        let only = limit.acquire().await;
        let mut new = Box::pin(limit.acquire());
        assert!((&mut new).now_or_never().is_none());
        // A request came at that moment: it gets its response, and then the connection ends.
        drop(only.begin_request());
        assert!(only.idle_since().is_some());
        assert!((&mut new).now_or_never().is_none());
        assert_eq!(limit.metrics.evicted.get(), 1);
        drop(only);
        assert!(new.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_new_connection_waits_while_all_have_requests() {
        let limit = ConnectionLimit::new(1, ConnectionMetrics::default());
        let only = limit.acquire().await;
        let request = only.begin_request();
        let mut new = Box::pin(limit.acquire());
        assert!((&mut new).now_or_never().is_none());
        assert!(!only.evicted.is_cancelled());
        drop(request);
        assert!((&mut new).now_or_never().is_none());
        assert!(only.evicted.is_cancelled());
        drop(only);
        assert!(new.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_closed_connection_leaves_nothing_behind() {
        let limit = ConnectionLimit::new(2, ConnectionMetrics::default());
        for _ in 0..10 {
            let permit = limit.acquire().await;
            drop(permit.begin_request());
        }
        assert!(limit.idle().by_number.is_empty());
        assert_eq!(limit.metrics.open.get(), 0);
        assert_eq!(limit.free.available_permits(), 2);
    }
}
