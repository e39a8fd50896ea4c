//! The customers' HTTP API: a return and its event are written in one MySQL transaction; Kafka is never asked.
//!
//! Must stay true: a 201 is sent only for a committed row (or one found after a lost COMMIT); every transaction runs
//! in a task of its own, so a client that hangs up cannot cancel it half way; errors travel as [`error::ApiError`],
//! never as warp rejections.

pub mod config;
pub mod error;

#[cfg(test)]
mod docs_copy;

pub mod auth;
pub mod openapi;
pub mod routes;
pub mod server;

mod answer_headers;
mod body;
mod client;
mod cors;
mod rate;
mod target;

pub mod backlog;
pub mod decision;
mod etag;
pub mod filing;
pub mod idempotency;
mod lane;
mod reading;
mod slots;
mod store;
pub mod trail;
pub mod watching;

pub mod metrics;
pub mod open_files;

use std::sync::Arc;
use std::time::Duration;

use shared::auth::Verifier;
use shared::runtime::db::{Database, DbMetrics};
use shared::runtime::http_server::Drain;
use shared::runtime::metrics::MetricSet;
use shared::runtime::ops::Checks;
use shared::runtime::{ops, schema};
use sqlx::mysql::{MySqlConnectOptions, MySqlPool};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, HttpArgs};
use crate::error::StartError;
use crate::filing::FilingDesk;
use crate::lane::{Lane, PATIENCE};
use crate::metrics::Metrics;
use crate::rate::RateLimit;
use crate::trail::Trail;

/// A started api: its listeners are bound and the schema is checked.
#[derive(Debug)]
pub struct App {
    cfg: Config,
    listener: TcpListener,
    ops_listener: TcpListener,
    options: MySqlConnectOptions,
    pool: MySqlPool,
    db: Database,
    verifier: Verifier,
    revoked: auth::Reading,
}

impl App {
    /// Reads the keys and checks the schema. Binds nothing: the listeners come from the caller.
    ///
    /// # Errors
    /// A key file cannot be read, MySQL is away, or the schema is too old (the message names the command to run).
    pub async fn build(
        cfg: Config,
        listener: TcpListener,
        ops_listener: TcpListener,
    ) -> Result<Self, StartError> {
        let verifier = auth::check(&cfg.auth)?;
        let options = cfg.db.options().map_err(StartError::Settings)?;
        let pool = cfg.db.pool().map_err(StartError::Settings)?;
        let db = Database::new(options.clone(), 4, &DbMetrics::new(&MetricSet::new()));
        schema::check(&db).await?;
        let revoked = auth::Reading::first(&pool).await?;
        Ok(Self {
            cfg,
            listener,
            ops_listener,
            options,
            pool,
            db,
            verifier,
            revoked,
        })
    }

    /// Serves until `stop` and for the stop delay, then drains: open requests are answered, then queued filings, then the
    /// pool is closed, all within the drain deadline. Not ready from `stop` on.
    ///
    /// # Errors
    /// A background task ended early; what was accepted is still answered.
    pub async fn run(self, stop: CancellationToken) -> Result<Drain, StartError> {
        let (cfg, options) = (self.cfg, self.options);
        let metrics = Arc::new(Metrics::new());
        // In this order: no more connections, no more filings, no more questions by operators.
        let [leaving, closing, quit] = std::array::from_fn(|_| CancellationToken::new());
        let (gate, meter) = backlog::open(&cfg.backlog, options.clone(), Arc::clone(&metrics));
        let (authenticator, keys, revocations) = auth::open(
            self.verifier,
            &cfg.auth,
            &cfg.tokens,
            self.revoked,
            options.clone(),
            &metrics,
        );
        let ops = tokio::spawn(ops::serve(
            self.ops_listener,
            metrics.registry().clone(),
            checks(&self.db, gate.clone(), Arc::clone(&authenticator)),
            stop.clone(),
            quit.clone(),
        ));
        let (watching, lookout) = watching::open(
            &cfg,
            options.clone(),
            &self.pool,
            Arc::clone(&metrics),
            leaving.clone(),
        );
        let (desk, mut tasks) =
            FilingDesk::open(&cfg, options, Arc::clone(&metrics), gate, closing.clone());
        tasks.spawn(lookout.run(closing.clone()));
        tasks.spawn(meter.run(closing.clone()));
        tasks.spawn(keys.run(closing.clone()));
        tasks.spawn(revocations.run(closing.clone()));
        let expiry = idempotency::EXPIRY_DEADLINE;
        let lane = Lane::quarters(1, &self.pool, expiry, expiry);
        tasks.spawn(idempotency::expire(lane, closing.clone()));
        let state = routes::State {
            reads: Lane::quarters(3, &self.pool, PATIENCE, cfg.http.request_timeout()),
            decisions: Lane::quarters(1, &self.pool, PATIENCE, cfg.http.request_timeout()),
            authenticator,
            desk,
            topics: cfg.topics.clone(),
            policy: cfg.policy.clone(),
            trail: Trail::new(&self.pool),
            callers: RateLimit::per_second(cfg.http.rate_per_caller).map(Arc::new),
            body_timeout: cfg.http.body_timeout(),
            watching,
        };
        let server = server::serve(self.listener, state, &cfg.http, metrics, leaving.clone());
        let deadline = leave(&stop, &leaving, &cfg.http);
        let (drain, early, deadline) =
            tokio::join!(server, watch(&mut tasks, &stop, &leaving), deadline);
        closing.cancel();
        let deadline = deadline.max(Instant::now() + LAST_MOMENT);
        let finished = finish(tasks, self.pool, deadline).await;
        quit.cancel();
        if let Err(error) = ops.await {
            tracing::error!(%error, "the operator endpoints panicked");
        }
        match (early, finished) {
            (true, _) => Err(StartError::TaskEnded),
            (false, Drain::Complete) => Ok(drain),
            (false, Drain::DeadlineMissed) => Ok(finished),
        }
    }
}

/// For `/readyz?verbose`.
fn checks(db: &Database, gate: backlog::Gate, authenticator: Arc<auth::Authenticator>) -> Checks {
    Checks::with(db, move || [gate.checks(), authenticator.checks()].concat())
}

/// Waits for `stop` and for the stop delay, then has the listener closed. Answers when everything must have ended.
async fn leave(stop: &CancellationToken, leaving: &CancellationToken, cfg: &HttpArgs) -> Instant {
    stop.cancelled().await;
    let deadline = Instant::now() + cfg.drain();
    let delay = tokio::time::sleep(cfg.stop_delay());
    leaving.run_until_cancelled(delay).await;
    leaving.cancel();
    deadline
}

/// For tasks and pool, also if a connection has used up the drain.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Waits for the tasks, and closes the pool.
async fn finish(mut tasks: JoinSet<()>, pool: MySqlPool, deadline: Instant) -> Drain {
    let finish = async {
        while tasks.join_next().await.is_some() {}
        pool.close().await;
    };
    match tokio::time::timeout_at(deadline, finish).await {
        Ok(()) => Drain::Complete,
        Err(_) => Drain::DeadlineMissed,
    }
}

/// Waits until the listener closes. A task that ends before takes the process down, loudly and without delay: better
/// restarted than half alive.
async fn watch(
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
    leaving: &CancellationToken,
) -> bool {
    tokio::select! {
        // First: once stopping, writers end because nobody is left to hand them work.
        biased;
        () = leaving.cancelled() => false,
        ended = tasks.join_next() => {
            tracing::error!(?ended, "a background task ended early");
            leaving.cancel();
            stop.cancel();
            true
        }
    }
}
