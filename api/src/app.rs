//! The running api: its parts, its tasks, and the order in which they stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use shared::auth::{KeyError, Verifier};
use shared::runtime::db::{Database, DbError};
use shared::runtime::http_server::Drain;
use shared::runtime::ops::{self, Checks};
use shared::runtime::program::{self, ListenError, NotReady, Start};
use shared::runtime::schema::{self, SchemaError};
use shared::runtime::tasks::{TaskError, Tasks};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditReads, ExportLimits};
use crate::auth::Authenticator;
use crate::backlog::Gate;
use crate::config::Config;
use crate::decisions::Decisions;
use crate::filing::{Filing, FilingQueue};
use crate::http::{self, RateLimit};
use crate::metrics::Metrics;
use crate::notifications::Notifications;
use crate::streams::Streams;
use crate::unclaimed::UnclaimedGauge;
use crate::{auth, backlog, idempotency, open_files};

/// Why the api did not start, or ended before it was stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{0}")]
    Settings(String),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("the address of the listener is unknown")]
    Address(#[from] std::io::Error),
    #[error(transparent)]
    NotReady(#[from] NotReady),
    #[error("the database cannot be used")]
    Schema(#[from] SchemaError),
    #[error("the list of revoked tokens cannot be read")]
    Revocations(#[from] DbError),
    #[error(transparent)]
    Task(#[from] TaskError),
}

/// An api that is ready to run: its listener is bound and the schema is checked.
#[derive(Debug)]
pub struct App {
    parts: Parts,
    listener: TcpListener,
    revocations: auth::Snapshot,
}

/// What there is before MySQL responds.
#[derive(Debug)]
struct Parts {
    cfg: Config,
    db: Database,
    metrics: Arc<Metrics>,
    verifier: Verifier,
}

/// Runs the api until it is stopped.
///
/// # Errors
/// See [`StartError`].
pub async fn run(cfg: Config, start: Start) -> Result<(), StartError> {
    open_files::allow(cfg.http.api_max_connections);
    let parts = Parts::new(cfg)?;
    let (database, registry) = (&parts.cfg.db, parts.metrics.registry());
    let connected = start.when_mysql_is_ready(database, registry, async || parts.connect().await);
    let Some(revocations) = connected.await? else {
        return Ok(());
    };
    // Only now: nobody would serve the requests of a client that connects before.
    let listener = program::listen("API_LISTEN", parts.cfg.http.api_listen).await?;
    let address = listener.local_addr()?;
    let app = App {
        parts,
        listener,
        revocations,
    };
    start.announce(Some(address));
    match app.run(start.ops_listener, start.stop).await? {
        Drain::Complete => tracing::info!("stopped"),
        Drain::DeadlineMissed => {
            tracing::warn!("stopped with connections still open at the drain deadline");
        }
    }
    Ok(())
}

impl Parts {
    fn new(cfg: Config) -> Result<Self, StartError> {
        let verifier = auth::load_keys(&cfg.auth)?;
        let metrics = Arc::new(Metrics::new());
        let options = cfg.db.options().map_err(StartError::Settings)?;
        let db = Database::new(options, cfg.db.database_max_connections, &metrics.db);
        Ok(Self {
            cfg,
            db,
            metrics,
            verifier,
        })
    }

    /// Checks the schema, and reads what must be known before the first request.
    async fn connect(&self) -> Result<auth::Snapshot, StartError> {
        schema::check(&self.db).await?;
        Ok(auth::Snapshot::read(&self.db).await?)
    }
}

impl App {
    /// Reads the keys and checks the schema. Listeners come from the caller.
    ///
    /// # Errors
    /// A key file cannot be read, MySQL is away, or the schema is too old (the message names the command to run).
    pub async fn build(cfg: Config, listener: TcpListener) -> Result<Self, StartError> {
        let parts = Parts::new(cfg)?;
        let revocations = parts.connect().await?;
        Ok(Self {
            parts,
            listener,
            revocations,
        })
    }

    /// Serves until `stop` and for the stop delay, then drains within the drain deadline: first open requests, then queued
    /// filings, last the operator endpoints. Not ready from `stop` on.
    ///
    /// # Errors
    /// A background task ended early. Accepted requests are still finished.
    pub async fn run(
        self,
        ops_listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<Drain, TaskError> {
        let Parts {
            cfg,
            db,
            metrics,
            verifier,
        } = self.parts;
        let mut tasks = Tasks::new();
        let (gate, monitor) = backlog::gate(&cfg.backlog, &db, Arc::clone(&metrics));
        let (authenticator, keys, revocations) = auth::authenticator(
            verifier,
            &cfg.auth,
            &cfg.tokens,
            self.revocations,
            &db,
            &metrics,
        );
        let checks = checks(&db, &gate, &authenticator);
        let stage = tasks.stage();
        let (registry, quit) = (metrics.registry().clone(), stage.stop());
        let ops = ops::serve(ops_listener, registry, checks, stop.clone(), quit);
        stage.spawn("operator endpoints", ops);

        // Streams and exports end when the listener closes.
        let leaving = CancellationToken::new();
        let (streams, poller) = Streams::new(
            &cfg.streams,
            cfg.streams_max(),
            &db,
            Arc::clone(&metrics),
            leaving.clone(),
        );
        let stage = tasks.stage();
        let filing = FilingQueue::start(filing_parts(&cfg, &db, &metrics, gate), stage);
        let expiry = idempotency::expire(quarter(&db), stage.stop());
        stage.spawn("change poller", poller.run(stage.stop()));
        stage.spawn("backlog monitor", monitor.run(stage.stop()));
        let unclaimed = UnclaimedGauge::new(&db, Arc::clone(&metrics));
        stage.spawn("unclaimed returns", unclaimed.run(stage.stop()));
        stage.spawn("key reload", keys.run(stage.stop()));
        stage.spawn("revocation reads", revocations.run(stage.stop()));
        stage.spawn("idempotency key expiry", expiry);

        let exports = ExportLimits {
            stop: leaving.clone(),
            pauses: cfg.http.write_timeout(),
        };
        let audit = AuditReads::new(&db, Arc::clone(&metrics), exports);
        let notifications = Notifications::new(&cfg.notifications, &db, &metrics);
        let state = state(
            &cfg,
            &db,
            authenticator,
            filing,
            streams,
            audit,
            notifications,
        );
        let (drain, stop_delay) = (cfg.http.drain(), cfg.http.stop_delay());
        let server = http::serve(self.listener, state, cfg.http, metrics, leaving.clone());
        let failed = tasks.ended_early();
        let stage = tasks.stage();
        let leave = leave(stage.stop(), stop_delay, failed, leaving);
        let served = stage.spawn_fallible("public listener", async {
            let (drained, ()) = tokio::join!(server, leave);
            Ok::<_, Infallible>(drained)
        });
        let late = tasks.run(&stop, drain).await?;
        db.close().await;
        if late.is_empty() {
            return Ok(served.take().unwrap_or(Drain::DeadlineMissed));
        }
        tracing::warn!(tasks = ?late, "tasks are still running at the drain deadline");
        Ok(Drain::DeadlineMissed)
    }
}

/// The lines of `/readyz?verbose`.
fn checks(db: &Database, gate: &Gate, authenticator: &Arc<Authenticator>) -> Checks {
    let (gate, authenticator) = (gate.clone(), Arc::clone(authenticator));
    Checks::with(db, move || [gate.checks(), authenticator.checks()].concat())
}

/// Closes the listener when the load balancer has noticed that the api stops; at once if the api has failed.
async fn leave(
    stopping: CancellationToken,
    stop_delay: Duration,
    failed: CancellationToken,
    leaving: CancellationToken,
) {
    stopping.cancelled().await;
    failed
        .run_until_cancelled(tokio::time::sleep(stop_delay))
        .await;
    leaving.cancel();
}

fn quarter(db: &Database) -> Database {
    db.share(db.max_connections() / 4)
}

fn filing_parts(cfg: &Config, db: &Database, metrics: &Arc<Metrics>, gate: Gate) -> Filing {
    Filing {
        args: cfg.filing.clone(),
        timeout: cfg.http.request_timeout(),
        topics: cfg.topics.clone(),
        policy: cfg.policy.clone(),
        db: db.clone(),
        metrics: Arc::clone(metrics),
        gate,
    }
}

fn state(
    cfg: &Config,
    db: &Database,
    authenticator: Arc<Authenticator>,
    filing: FilingQueue,
    streams: Streams,
    audit: AuditReads,
    notifications: Option<Notifications>,
) -> http::State {
    let reads = db.share(db.max_connections() * 3 / 4);
    http::State {
        reads: reads.clone(),
        read_deadline: cfg.http.request_timeout(),
        authenticator,
        filing,
        decisions: Decisions {
            db: quarter(db),
            lookups: reads,
            topics: cfg.topics.clone(),
            deadline: cfg.http.request_timeout(),
        },
        audit,
        streams,
        notifications,
        policy: cfg.policy.clone(),
        caller_rate: RateLimit::per_second(cfg.http.rate_per_caller),
        body_timeout: cfg.http.body_timeout(),
        public_url: cfg.http.public_base_url.clone(),
    }
}
