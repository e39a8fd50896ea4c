//! A bounded set of connections. A caller gets at most as many of them as its share allows.
//!
//! Not sqlx's pool: that one pings a connection each time it comes back, which costs a round trip per use and has no
//! deadline, so a silent server keeps the permit (sqlx-core 0.9, `Floating::return_to_pool`). Here the runner decides
//! whether a connection comes back; one that does not is dropped, which closes its socket.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection, MySqlConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant as TokioInstant, timeout, timeout_at};

use super::{DbError, connect};

/// A connection that was idle for longer is pinged before use.
const PING_AFTER: Duration = Duration::from_secs(2);
const PING_DEADLINE: Duration = Duration::from_millis(500);
/// A connection that was idle for longer is closed: well below the session's `wait_timeout`, so the server has none to cut.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the goodbye to the server.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Idle {
    conn: MySqlConnection,
    since: Instant,
}

/// The connections themselves. The most recently used one is taken first, so that a quiet program needs few.
#[derive(Debug)]
pub(super) struct Connections {
    options: MySqlConnectOptions,
    idle: Mutex<Vec<Idle>>,
    permits: Arc<Semaphore>,
    /// A task closes idle connections as they grow too old; it ends when there are none.
    is_swept: AtomicBool,
}

/// A connection on loan. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Loan {
    pub(super) conn: MySqlConnection,
    permits: Permits,
}

/// The right to use one connection: of the share, and of the whole set.
#[derive(Debug)]
pub(super) struct Permits {
    _share: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn new(options: MySqlConnectOptions, max: u32) -> Self {
        Self {
            options,
            idle: Mutex::default(),
            permits: Arc::new(permits(max)),
            is_swept: AtomicBool::new(false),
        }
    }

    pub(super) fn options(&self) -> &MySqlConnectOptions {
        &self.options
    }

    /// Waits for a permit of `share` and one of the set. Cancel-safe.
    pub(super) async fn permits(
        &self,
        share: &Arc<Semaphore>,
        acquire_timeout: Duration,
    ) -> Result<Permits, DbError> {
        let until = TokioInstant::now() + acquire_timeout;
        let one = async |semaphore: &Arc<Semaphore>| {
            timeout_at(until, Arc::clone(semaphore).acquire_owned())
                .await
                .map_err(|_| DbError::NoConnection(acquire_timeout))
                .map(|permit| permit.expect("the semaphore is never closed"))
        };
        Ok(Permits {
            _share: one(share).await?,
            _all: one(&self.permits).await?,
        })
    }

    /// An idle connection that still works, or a new one.
    pub(super) async fn borrow(&self, permits: Permits) -> sqlx::Result<Loan> {
        while let Some(mut idle) = self.take_idle() {
            let used_just_now = idle.since.elapsed() < PING_AFTER;
            if used_just_now || matches!(timeout(PING_DEADLINE, idle.conn.ping()).await, Ok(Ok(())))
            {
                return Ok(Loan {
                    conn: idle.conn,
                    permits,
                });
            }
        }
        Ok(Loan {
            conn: connect(&self.options).await?,
            permits,
        })
    }

    /// Gives a connection back whose state is known.
    pub(super) fn give_back(self: &Arc<Self>, loan: Loan) {
        let idle = Idle {
            conn: loan.conn,
            since: Instant::now(),
        };
        self.lock().push(idle);
        drop(loan.permits);
        if !self.is_swept.swap(true, Ordering::AcqRel) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes the idle connections without a goodbye, because they probably lead nowhere.
    pub(super) fn forget_idle(&self) {
        self.lock().clear();
    }

    /// Closes the idle connections politely.
    pub(super) async fn close(&self) {
        let idle = std::mem::take(&mut *self.lock());
        close_all(idle).await;
    }

    /// The most recently used connection, if it is not too old. The older ones below it stay for the sweep.
    fn take_idle(&self) -> Option<Idle> {
        let newest = self.lock().pop()?;
        (newest.since.elapsed() < IDLE_TIMEOUT).then_some(newest)
    }

    /// Removes the connections that were idle for too long.
    fn take_too_old(&self) -> Vec<Idle> {
        self.lock()
            .extract_if(.., |idle| idle.since.elapsed() >= IDLE_TIMEOUT)
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn permits(max: u32) -> Semaphore {
    Semaphore::new(usize::try_from(max.max(1)).unwrap_or(Semaphore::MAX_PERMITS))
}

/// Closes connections as they grow too old, until none is idle.
async fn sweep(connections: Weak<Connections>) {
    loop {
        tokio::time::sleep(IDLE_TIMEOUT / 4).await;
        let Some(connections) = connections.upgrade() else {
            return;
        };
        close_all(connections.take_too_old()).await;
        let idle = connections.lock();
        if idle.is_empty() {
            // Under the lock: a connection that comes back after this starts the next sweep.
            connections.is_swept.store(false, Ordering::Release);
            return;
        }
    }
}

/// Says goodbye to the server, so that it logs no aborted connections.
async fn close_all(idle: Vec<Idle>) {
    let closing = async {
        for idle in idle {
            // The server ends the session by itself if this fails.
            let _ = idle.conn.close().await;
        }
    };
    let _ = timeout(CLOSE_DEADLINE, closing).await;
}
