//! The one way to use MySQL: a unit of work with a name and a deadline, in a task of its own.
//!
//! Must stay true: a sqlx future is never dropped half way by a caller that gives up, because the work runs in its own
//! task; no connection is used for longer than the deadline, also when MySQL is silent; a connection whose state is
//! not known is closed and never used again.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use opentelemetry::trace::FutureExt;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection, MySqlConnection};
use tokio::sync::Semaphore;
use tokio::time::{Instant as TokioInstant, timeout, timeout_at};

use super::connections::{Connections, Loan, permits};
use super::statement_span::StatementSpan;
use super::{DbError, DbFailure, DbMetrics};
use crate::runtime::metrics::MetricSet;
use crate::runtime::tasks::{Backoff, Rarely};

/// How long a caller waits for a free connection, and then for a new one to open, unless it says otherwise.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// MySQL, through a bounded set of connections that open when first needed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    connections: Arc<Connections>,
    share: Arc<Semaphore>,
    max_connections: u32,
    acquire_timeout: Duration,
    metrics: DbMetrics,
}

/// How often a transaction runs again after a lock conflict.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Runs in total.
    pub tries: u32,
    pub backoff: Backoff,
}

impl Retry {
    /// The caller decides what follows a conflict.
    pub const NEVER: Self = Self {
        tries: 1,
        backoff: Backoff {
            base: Duration::ZERO,
            cap: Duration::ZERO,
        },
    };
}

/// Why a transaction was not committed, or is not known to be.
#[derive(Debug)]
pub enum TransactionError<T, E> {
    /// Every try met a deadlock or a lock wait timeout. Rolled back.
    Conflict(E),
    /// The body refused, or the database failed before COMMIT was sent. Rolled back.
    Refused(E),
    /// The response to COMMIT was lost: it may have taken effect, or may still. `value` is what the body returned.
    CommitUnknown { value: T, cause: DbError },
}

impl Database {
    /// At most `max_connections`, under this system's session rules.
    pub fn new(options: MySqlConnectOptions, max_connections: u32, metrics: &DbMetrics) -> Self {
        Self {
            connections: Arc::new(Connections::new(options, max_connections)),
            share: Arc::new(permits(max_connections)),
            max_connections,
            acquire_timeout: ACQUIRE_TIMEOUT,
            metrics: metrics.clone(),
        }
    }

    /// For a command-line program, whose metrics are not scraped.
    pub fn unmetered(options: MySqlConnectOptions, max_connections: u32) -> Self {
        Self::new(options, max_connections, &DbMetrics::new(&MetricSet::new()))
    }

    /// A bulkhead: the same connections, but at most `permits` of them at once, so that slow work here leaves
    /// connections to others.
    #[must_use]
    pub fn share(&self, permits_of_share: u32) -> Self {
        Self {
            share: Arc::new(permits(permits_of_share)),
            max_connections: permits_of_share.max(1),
            ..self.clone()
        }
    }

    /// Connections of its own, for work that must not wait for others.
    #[must_use]
    pub fn separate(&self, max_connections: u32) -> Self {
        Self {
            connections: Arc::new(self.connections.separate(max_connections)),
            share: Arc::new(permits(max_connections)),
            max_connections,
            acquire_timeout: ACQUIRE_TIMEOUT,
            metrics: self.metrics.clone(),
        }
    }

    /// How long [`Self::run`] and [`Self::transaction`] wait for a free connection, and for a new one to open.
    #[must_use]
    pub fn acquire_timeout(self, acquire_timeout: Duration) -> Self {
        Self {
            acquire_timeout,
            ..self
        }
    }

    pub fn max_connections(&self) -> u32 {
        self.max_connections
    }

    /// Runs `work` on a connection, for at most `deadline`. `name` labels the metric. Cancel-safe: work that has begun
    /// runs to its end, or to the deadline, whether or not the caller waits.
    ///
    /// # Errors
    /// The error of `work`, or a [`DbError`]: no connection in time, the deadline passed (a write may have happened), or the
    /// work panicked. `E` must keep the database error among its sources (not `#[error(transparent)]`, which hides it): the
    /// runner decides about the connection by it.
    pub async fn run<T, E, W>(
        &self,
        name: &'static str,
        deadline: Duration,
        work: W,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: Error + From<DbError> + Send + 'static,
        W: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        let (began, span) = (Instant::now(), StatementSpan::begin(name));
        let finished = self
            .on_loan(deadline, move |mut loan, until| {
                Box::pin(async move {
                    match timeout_at(until, work(&mut loan.conn)).await {
                        Ok(result) => {
                            let end = result.as_ref().err().map_or(End::GiveBack, End::after);
                            (Ok(result), loan, end)
                        }
                        // Never by what `E` says about it: the dropped future may have been in mid-packet.
                        Err(_) => (Err(DbError::DeadlinePassed(deadline)), loan, End::CloseAll),
                    }
                })
            })
            .await;
        let result = finished
            .map_err(E::from)
            .and_then(|finished| finished.unwrap_or_else(|error| Err(error.into())));
        let error = result.as_ref().err();
        self.metrics.observe(name, began, outcome(error));
        self.metrics.count(error.map(|error| error as _));
        span.end(outcome(error), error.map(|error| error as _));
        result
    }

    /// Runs `body` between BEGIN and COMMIT; the whole again after a lock conflict, as `retry` allows. Each run has
    /// `deadline`. The body may run several times, so it has no other effects. Cancel-safe as [`Self::run`].
    ///
    /// # Errors
    /// See [`TransactionError`].
    pub async fn transaction<T, E, B>(
        &self,
        name: &'static str,
        deadline: Duration,
        retry: Retry,
        body: B,
    ) -> Result<T, TransactionError<T, E>>
    where
        T: Send + 'static,
        E: Error + From<DbError> + Send + 'static,
        B: for<'c> Fn(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, E>>
            + Send
            + Sync
            + 'static,
    {
        let body = Arc::new(body);
        let mut tries = 1;
        loop {
            let (began, span) = (Instant::now(), StatementSpan::begin(name));
            let outcome = self.transact_once(deadline, Arc::clone(&body)).await;
            self.metrics.observe(name, began, label(&outcome));
            self.metrics.count(cause(&outcome));
            span.end(label(&outcome), cause(&outcome));
            match outcome {
                Err(TransactionError::Conflict(error)) if tries < retry.tries => {
                    tracing::debug!(operation = name, tries, %error, "a transaction runs again after a lock conflict");
                    tokio::time::sleep(retry.backoff.pause(tries)).await;
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn transact_once<T, E, B>(
        &self,
        deadline: Duration,
        body: Arc<B>,
    ) -> Result<T, TransactionError<T, E>>
    where
        T: Send + 'static,
        E: Error + From<DbError> + Send + 'static,
        B: for<'c> Fn(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, E>>
            + Send
            + Sync
            + 'static,
    {
        let finished = self
            .on_loan(deadline, move |mut loan, until| {
                Box::pin(async move {
                    let (outcome, end) =
                        write(&mut loan.conn, until, deadline, body.as_ref()).await;
                    (outcome, loan, end)
                })
            })
            .await;
        finished.unwrap_or_else(|error| Err(TransactionError::Refused(error.into())))
    }

    /// Lends `work` a connection in a task of its own. Connecting counts as waiting for a connection: nothing was sent yet.
    async fn on_loan<T, W>(&self, deadline: Duration, work: W) -> Result<T, DbError>
    where
        T: Send + 'static,
        W: FnOnce(Loan, TokioInstant) -> BoxFuture<'static, (T, Loan, End)> + Send + 'static,
    {
        let permits = self
            .connections
            .permits(&self.share, self.acquire_timeout)
            .await?;
        let connections = Arc::clone(&self.connections);
        let connect_timeout = self.acquire_timeout.min(deadline);
        let task = async move {
            let until = TokioInstant::now() + deadline;
            let loan = match timeout(connect_timeout, connections.borrow(permits)).await {
                Ok(loan) => loan?,
                Err(_) => return Err(DbError::NoConnection(connect_timeout)),
            };
            let (result, loan, end) = work(loan, until).await;
            match end {
                End::GiveBack => connections.give_back(loan),
                End::Close => {}
                End::CloseAll => connections.forget_idle(),
                End::Leave => connections.leave(loan),
            }
            Ok(result)
        };
        let task = tokio::spawn(task.with_current_context());
        task.await.unwrap_or(Err(DbError::Panicked))
    }

    /// Closes the idle connections politely, within a second.
    pub async fn close(&self) {
        self.connections.close().await;
    }
}

/// What becomes of a connection after its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The session is in a known state.
    GiveBack,
    Close,
    /// The connection was lost, so the idle ones probably are too: a failover cuts all of them.
    CloseAll,
    /// The session is in a known state, but its server takes no writes, and another one may.
    Leave,
}

impl End {
    /// After an error of the work. One without a database error among its sources is the caller's own refusal.
    fn after<E: Error + 'static>(error: &E) -> Self {
        match DbFailure::in_chain(error) {
            None | Some(DbFailure::Duplicate { .. } | DbFailure::LockConflict) => Self::GiveBack,
            Some(DbFailure::ConnectionLost) => Self::CloseAll,
            Some(DbFailure::ReadOnly) => Self::Leave,
            Some(
                DbFailure::Denied
                | DbFailure::Unavailable
                | DbFailure::Values
                | DbFailure::Statement,
            ) => Self::Close,
        }
    }
}

/// One run of a transaction.
async fn write<T, E, B>(
    conn: &mut MySqlConnection,
    until: TokioInstant,
    deadline: Duration,
    body: &B,
) -> (Result<T, TransactionError<T, E>>, End)
where
    E: Error + From<DbError> + Send + 'static,
    B: for<'c> Fn(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, E>>,
{
    let mut tx = match timeout_at(until, conn.begin()).await {
        Ok(Ok(tx)) => tx,
        Ok(Err(error)) => return (Err(refused(DbError::from(error))), End::CloseAll),
        Err(_) => {
            return (
                Err(refused(DbError::DeadlinePassed(deadline))),
                End::CloseAll,
            );
        }
    };
    let value = match timeout_at(until, body(&mut tx)).await {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            // At once: a dropped transaction keeps its locks until the connection is used again, and after a 1062 a
            // next-key lock stays (MySQL manual, "Locks Set by Different SQL Statements in InnoDB").
            let rolled_back = matches!(timeout_at(until, tx.rollback()).await, Ok(Ok(())));
            let end = if rolled_back {
                End::after(&error)
            } else {
                End::CloseAll
            };
            return (Err(classified(error)), end);
        }
        Err(_) => {
            return (
                Err(refused(DbError::DeadlinePassed(deadline))),
                End::CloseAll,
            );
        }
    };
    let (cause, end): (DbError, End) = match timeout_at(until, tx.commit()).await {
        Ok(Ok(())) => return (Ok(value), End::GiveBack),
        Ok(Err(error)) if DbFailure::of(&error) == DbFailure::ReadOnly => {
            (error.into(), End::Leave)
        }
        Ok(Err(error)) => (error.into(), End::CloseAll),
        Err(_) => (DbError::DeadlinePassed(deadline), End::CloseAll),
    };
    static LOST: Rarely = Rarely::new();
    if let Some(left_out) = LOST.due() {
        tracing::warn!(error = %cause, left_out, "the response to COMMIT was lost");
    }
    (Err(TransactionError::CommitUnknown { value, cause }), end)
}

fn refused<T, E: From<DbError>>(error: DbError) -> TransactionError<T, E> {
    TransactionError::Refused(error.into())
}

fn classified<T, E: Error + 'static>(error: E) -> TransactionError<T, E> {
    match DbFailure::in_chain(&error) {
        Some(DbFailure::LockConflict) => TransactionError::Conflict(error),
        _ => TransactionError::Refused(error),
    }
}

/// Values of the metric's label: [`DbError::code`], and what is no error of a single statement.
pub(super) const OUTCOMES: [&str; 14] = [
    "ok",
    "duplicate",
    "lock_conflict",
    "connection_lost",
    "read_only",
    "denied",
    "unavailable",
    "values",
    "statement",
    "no_connection",
    "deadline",
    "panicked",
    "refused",
    "commit_unknown",
];

/// The metric's label for an outcome.
fn outcome<E: Error + 'static>(error: Option<&E>) -> &'static str {
    let Some(error) = error else { return "ok" };
    let mut causes = std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| {
        error.source()
    });
    match causes.find_map(|error| error.downcast_ref::<DbError>()) {
        Some(error) => error.code(),
        None => DbFailure::in_chain(error).map_or("refused", |failure| failure.code()),
    }
}

/// The error of a failed run, with its sources.
fn cause<T, E: Error + 'static>(
    outcome_of: &Result<T, TransactionError<T, E>>,
) -> Option<&(dyn Error + 'static)> {
    match outcome_of.as_ref().err()? {
        TransactionError::CommitUnknown { cause, .. } => Some(cause),
        TransactionError::Conflict(error) | TransactionError::Refused(error) => Some(error),
    }
}

fn label<T, E: Error + 'static>(outcome_of: &Result<T, TransactionError<T, E>>) -> &'static str {
    match outcome_of {
        Ok(_) => "ok",
        Err(TransactionError::CommitUnknown { .. }) => "commit_unknown",
        Err(TransactionError::Conflict(error) | TransactionError::Refused(error)) => {
            outcome(Some(error))
        }
    }
}
