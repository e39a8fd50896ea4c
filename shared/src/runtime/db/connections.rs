//! A bounded set of connections. No call gets more of them than its share allows.
//!
//! Not sqlx's pool: that one pings a connection each time it comes back, which costs a round trip per use and has no
//! deadline, so a silent server keeps the permit (sqlx-core 0.9, `Floating::return_to_pool`). Here the runner decides
//! whether a connection comes back; one that does not is dropped, which closes its socket.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection, MySqlConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant as TokioInstant, timeout, timeout_at};

use super::{DbError, connect};

/// A connection that was idle for longer is pinged before use.
const PING_AFTER: Duration = Duration::from_secs(2);
const PING_DEADLINE: Duration = Duration::from_millis(500);
/// A connection that was idle for longer is closed. Well below the session's `wait_timeout`, so the server never cuts a
/// connection that is about to be used.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the goodbye to the server when a program ends.
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
                .map_err(|_| DbError::NoPermit(acquire_timeout))
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
    pub(super) fn give_back(&self, loan: Loan) {
        let idle = Idle {
            conn: loan.conn,
            since: Instant::now(),
        };
        self.lock().push(idle);
        drop(loan.permits);
    }

    /// The most recently used connection. Those that were idle for too long are closed on the way.
    fn take_idle(&self) -> Option<Idle> {
        let mut idle = self.lock();
        let newest = idle.pop()?;
        idle.retain(|idle| idle.since.elapsed() < IDLE_TIMEOUT);
        (newest.since.elapsed() < IDLE_TIMEOUT).then_some(newest)
    }

    /// Says goodbye to the server, so that it logs no aborted connections.
    pub(super) async fn close(&self) {
        let idle = std::mem::take(&mut *self.lock());
        let closing = async {
            for idle in idle {
                // The server ends the session by itself if this fails.
                let _ = idle.conn.close().await;
            }
        };
        let _ = timeout(CLOSE_DEADLINE, closing).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn permits(max: u32) -> Semaphore {
    Semaphore::new(usize::try_from(max.max(1)).unwrap_or(Semaphore::MAX_PERMITS))
}
