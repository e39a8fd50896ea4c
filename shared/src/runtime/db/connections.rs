//! A bounded set of connections. A caller gets at most as many of them as its share allows.
//!
//! Not sqlx's pool: that one pings a connection each time it comes back, which costs a round trip per use and has no
//! deadline, so a silent server keeps the permit (sqlx-core 0.9, `Floating::return_to_pool`). Here the runner decides
//! whether a connection comes back; one that does not is dropped, which closes its socket.
//!
//! After a switchover the old primary still answers reads, with old rows. So a connection is asked at most a second before
//! each use whether its server takes writes, which also shows that it still works. If not, it is closed: a new connection
//! leads wherever the address leads now. If that is a read-only server too, there is no better one for now: for the next
//! second no connection is closed for it, so that writes which fail cost no logins, and reads go on.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection, MySqlConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant as TokioInstant, timeout, timeout_at};

use super::{DbError, DbFailure, connect, takes_writes};

/// A connection whose server was asked longer ago is asked again before use. So this is how old a row can be that is read
/// from an old primary.
const CHECK_AFTER: Duration = Duration::from_secs(1);
const CHECK_DEADLINE: Duration = Duration::from_millis(500);
/// After a refused login the server is left alone for this long.
const LOGIN_PAUSE: Duration = Duration::from_secs(1);
/// A connection that was idle for longer is closed: well below the session's `wait_timeout`, so the server has none to cut.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the goodbye to the server.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Idle {
    conn: MySqlConnection,
    checked: Instant,
    since: Instant,
}

/// What the sets of one program share: they all lead to the same address.
#[derive(Debug, Default)]
pub(super) struct Address {
    /// When a connection last led to a server that takes no writes: every earlier one may.
    suspected: Mutex<Option<Instant>>,
    /// When a new connection led to such a server too.
    no_better: Mutex<Option<Instant>>,
    /// When the login was last refused, and the server's text.
    login_refused: Mutex<Option<(Instant, String)>>,
}

impl Address {
    fn suspect(&self) {
        *lock(&self.suspected) = Some(Instant::now());
    }

    fn is_suspected_since(&self, checked: Instant) -> bool {
        lock(&self.suspected).is_some_and(|at| checked <= at)
    }

    /// A connection was opened at `opened`.
    fn note_new(&self, opened: Instant, takes_writes: bool) {
        *lock(&self.no_better) = (!takes_writes).then_some(opened);
    }

    /// When a new connection led to a server that takes no writes, if that was a moment ago.
    fn no_better_since(&self) -> Option<Instant> {
        lock(&self.no_better).filter(|at| at.elapsed() < CHECK_AFTER)
    }

    /// # Errors
    /// The login was refused a moment ago.
    fn may_log_in(&self) -> Result<(), DbError> {
        match &*lock(&self.login_refused) {
            Some((at, text)) if at.elapsed() < LOGIN_PAUSE => {
                Err(DbError::LoginRefused(text.clone()))
            }
            _ => Ok(()),
        }
    }

    fn note_login(&self, error: &sqlx::Error) {
        if DbFailure::of(error) == DbFailure::Denied {
            let text = error.source().unwrap_or(error).to_string();
            *lock(&self.login_refused) = Some((Instant::now(), text));
        }
    }
}

/// The connections themselves. The most recently used one is taken first, so that a quiet program needs few.
#[derive(Debug)]
pub(super) struct Connections {
    options: MySqlConnectOptions,
    address: Arc<Address>,
    idle: Mutex<Vec<Idle>>,
    permits: Arc<Semaphore>,
    /// A task closes idle connections as they grow too old; it ends when there are none.
    is_swept: AtomicBool,
}

/// What was found out about an idle connection.
enum Checked {
    /// Its server takes writes, or there is none that does.
    Works {
        as_of: Instant,
    },
    TakesNoWrites,
    IsDead,
}

/// A connection on loan. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Loan {
    pub(super) conn: MySqlConnection,
    checked: Instant,
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
        Self::at(Arc::default(), options, max)
    }

    /// Another set, with connections of its own.
    pub(super) fn separate(&self, max: u32) -> Self {
        Self::at(Arc::clone(&self.address), self.options.clone(), max)
    }

    fn at(address: Arc<Address>, options: MySqlConnectOptions, max: u32) -> Self {
        Self {
            options,
            address,
            idle: Mutex::default(),
            permits: Arc::new(permits(max)),
            is_swept: AtomicBool::new(false),
        }
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
    pub(super) async fn borrow(&self, permits: Permits) -> Result<Loan, DbError> {
        while let Some(mut idle) = self.take_idle() {
            match self.check(&mut idle).await {
                Checked::Works { as_of } => {
                    return Ok(Loan {
                        conn: idle.conn,
                        checked: as_of,
                        permits,
                    });
                }
                Checked::IsDead => {}
                // The others may lead there too. A new one shows whether there is a better server.
                Checked::TakesNoWrites => break,
            }
        }
        self.open(permits).await
    }

    async fn open(&self, permits: Permits) -> Result<Loan, DbError> {
        self.address.may_log_in()?;
        let checked = Instant::now();
        let opened = connect(&self.options).await;
        let mut conn = opened.inspect_err(|error| self.address.note_login(error))?;
        if lock(&self.address.suspected).is_some_and(|at| at.elapsed() < CHECK_AFTER) {
            let takes_writes = takes_writes(&mut conn).await?;
            self.address.note_new(checked, takes_writes);
        }
        Ok(Loan {
            conn,
            checked,
            permits,
        })
    }

    /// Whether it works and its server takes writes, as of at most [`CHECK_AFTER`] ago.
    async fn check(&self, idle: &mut Idle) -> Checked {
        if idle.checked.elapsed() < CHECK_AFTER && !self.address.is_suspected_since(idle.checked) {
            return Checked::Works {
                as_of: idle.checked,
            };
        }
        let asked = Instant::now();
        match timeout(CHECK_DEADLINE, takes_writes(&mut idle.conn)).await {
            Ok(Ok(true)) => Checked::Works { as_of: asked },
            Ok(Ok(false)) => match self.address.no_better_since() {
                Some(as_of) => Checked::Works { as_of },
                None => {
                    self.address.suspect();
                    Checked::TakesNoWrites
                }
            },
            Ok(Err(_)) | Err(_) => Checked::IsDead,
        }
    }

    /// Gives a connection back whose state is known.
    pub(super) fn give_back(self: &Arc<Self>, loan: Loan) {
        let idle = Idle {
            conn: loan.conn,
            checked: loan.checked,
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

    /// This connection led to a server that takes no writes: every set asks its connections before their next use, unless
    /// there is no better server.
    pub(super) fn leave(self: &Arc<Self>, loan: Loan) {
        match self.address.no_better_since() {
            Some(checked) => self.give_back(Loan { checked, ..loan }),
            None => self.address.suspect(),
        }
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

    /// Removes the connections that were idle for too long, and those that may lead to an old primary.
    fn take_too_old(&self) -> Vec<Idle> {
        let has_no_better = self.address.no_better_since().is_some();
        let is_over = |idle: &mut Idle| {
            idle.since.elapsed() >= IDLE_TIMEOUT
                || (!has_no_better && self.address.is_suspected_since(idle.checked))
        };
        self.lock().extract_if(.., is_over).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        lock(&self.idle)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
