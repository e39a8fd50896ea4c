//! The cap on connections, and who has to go when one more comes.
//!
//! Must stay true: a newcomer never waits while somebody else waits for a request. So whoever opens connections and
//! sends nothing, or half a head, loses them to clients that ask for something, oldest first. What it costs: a client
//! that reuses connections may find one closed under it, as after any idle time, only sooner.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::connections::Connections;

/// How long whoever was asked for a seat may take before another is asked too.
const PATIENCE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Seats {
    free: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    /// Somebody began to wait.
    begun: Notify,
    connections: Connections,
}

/// Connections without a request, by when they began to wait. By number: no two are equal, as times may be.
#[derive(Debug, Default)]
struct Waiting {
    begun: u64,
    since: BTreeMap<u64, CancellationToken>,
}

/// The right of one connection to be there.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    /// Under what number and since when this connection waits; `None` while it has a request under way. 0 is nobody's.
    since: Mutex<Option<(u64, Instant)>>,
    wanted: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// A request between its head and the last of its answer. Dropped, its connection waits again.
///
/// "The last" is what the service makes of it, not what the client takes: a client that does not read counts as waiting.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Seat>);

impl Seats {
    pub(super) fn new(max: usize, connections: Connections) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(max)),
            waiting: Mutex::default(),
            begun: Notify::new(),
            connections,
        })
    }

    /// A free seat, or that of the connection that has waited longest. Waits while every connection has a request.
    pub(super) async fn take(self: &Arc<Self>) -> Arc<Seat> {
        let permit = loop {
            tokio::select! {
                biased;
                permit = self.permit() => break permit,
                () = self.ask_longest_waiting() => {}
            }
            // Whoever was asked may have begun to work at that moment, or has an answer to deliver: then the next is asked.
            if let Ok(permit) = timeout(PATIENCE, self.permit()).await {
                break permit;
            }
        };
        let seat = Arc::new(Seat {
            seats: Arc::clone(self),
            since: Mutex::new(None),
            wanted: CancellationToken::new(),
            _permit: permit,
        });
        self.connections.open.inc();
        seat.wait();
        seat
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.free).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    async fn ask_longest_waiting(&self) {
        loop {
            // One permit is stored, so a wait that begins between the look and this await is not missed.
            if let Some((_, wanted)) = self.waiting().since.pop_first() {
                // Under the lock: a seat that waits anew meanwhile must know.
                wanted.cancel();
                self.connections.evicted.inc();
                return;
            }
            self.begun.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no panic under this lock")
    }
}

impl Seat {
    /// Resolves once the seat is wanted for somebody else.
    pub(super) async fn wanted(&self) {
        self.wanted.cancelled().await;
    }

    /// Since when there has been no request; `None` while there is one.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.since().map(|(_, since)| since)
    }

    /// A request has come.
    pub(super) fn work(self: &Arc<Self>) -> UnderWay {
        if let Some((number, _)) = self.since().take() {
            self.seats.waiting().since.remove(&number);
        }
        UnderWay(Arc::clone(self))
    }

    fn wait(&self) {
        let mut since = self.since();
        if self.wanted.is_cancelled() {
            // It goes already, and is not asked twice.
            *since = Some((0, Instant::now()));
            return;
        }
        let mut waiting = self.seats.waiting();
        waiting.begun += 1;
        let number = waiting.begun;
        waiting.since.insert(number, self.wanted.clone());
        *since = Some((number, Instant::now()));
        self.seats.begun.notify_one();
    }

    fn since(&self) -> MutexGuard<'_, Option<(u64, Instant)>> {
        self.since.lock().expect("no panic under this lock")
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((number, _)) = self.since().take() {
            self.seats.waiting().since.remove(&number);
        }
        self.seats.connections.open.dec();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_longest_waiting_gives_way() {
        let seats = Seats::new(3, Connections::default());
        let first = seats.take().await;
        let second = seats.take().await;
        let third = seats.take().await;
        let working = first.work();
        let mut newcomer = Box::pin(seats.take());
        assert!((&mut newcomer).now_or_never().is_none());
        let wanted = [&first, &second, &third].map(|seat| seat.wanted.is_cancelled());
        assert_eq!(wanted, [false, true, false]);
        drop(second);
        let fourth = newcomer.await;
        // It waits again, but not for as long as the third.
        drop(working);
        let mut newcomer = Box::pin(seats.take());
        assert!((&mut newcomer).now_or_never().is_none());
        let wanted = [&first, &third, &fourth].map(|seat| seat.wanted.is_cancelled());
        assert_eq!(wanted, [false, true, false]);
        let Connections { open, evicted } = &seats.connections;
        assert_eq!((open.get(), evicted.get()), (3, 2));
    }

    #[tokio::test]
    async fn who_was_asked_to_go_is_not_asked_again() {
        let seats = Seats::new(1, Connections::default());
        let only = seats.take().await;
        let mut newcomer = Box::pin(seats.take());
        assert!((&mut newcomer).now_or_never().is_none());
        // A request came at that moment: it is answered, and then the connection ends.
        drop(only.work());
        assert!(only.waits_since().is_some());
        assert!((&mut newcomer).now_or_never().is_none());
        assert_eq!(seats.connections.evicted.get(), 1);
        drop(only);
        assert!(newcomer.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_newcomer_waits_while_everybody_works() {
        let seats = Seats::new(1, Connections::default());
        let only = seats.take().await;
        let working = only.work();
        let mut newcomer = Box::pin(seats.take());
        assert!((&mut newcomer).now_or_never().is_none());
        assert!(!only.wanted.is_cancelled());
        drop(working);
        assert!((&mut newcomer).now_or_never().is_none());
        assert!(only.wanted.is_cancelled());
        drop(only);
        assert!(newcomer.now_or_never().is_some());
    }

    #[tokio::test]
    async fn nothing_is_kept_of_who_has_left() {
        let seats = Seats::new(2, Connections::default());
        for _ in 0..10 {
            let seat = seats.take().await;
            drop(seat.work());
        }
        assert!(seats.waiting().since.is_empty());
        assert_eq!(seats.connections.open.get(), 0);
        assert_eq!(seats.free.available_permits(), 2);
    }
}
