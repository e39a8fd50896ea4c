//! Pays approved returns back: claim, pay, settle, reconcile.
//!
//! Owns the table `refunds`. Must stay true: a message only says *which* return to look at, everything is decided on
//! locked rows; a committed claim drives everything after it; at most one refund effect per return at the gateway.
//! Messages arrive at least once and are deduplicated by event id.

pub mod config;
pub mod error;

pub mod claim;
pub mod dead_letter;
pub mod intake;
pub mod message;

pub mod attempt;
pub mod batcher;
pub mod gateway;
pub mod open_attempts;
pub mod refund;

pub mod settle;

pub mod expiry;
pub mod gauges;
pub mod reconcile;

pub mod metrics;
pub mod store;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shared::runtime::db::{Database, DbMetrics};
use shared::runtime::metrics::MetricSet;
use shared::runtime::{ops, schema};
use sqlx::mysql::MySqlPool;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use batcher::batcher;
use claim::Claimer;
use config::Config;
use error::Error;
use gateway::RefundGateway;
use intake::Intake;
use metrics::Metrics;
use open_attempts::OpenAttempts;
use reconcile::Reconciler;
use refund::RefundWorker;
use settle::{LookUpBackoff, Settler};

/// Our name as an actor and towards Kafka.
pub const PROGRAM: &str = "refund-consumer";

const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// How the drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    Complete,
    /// So many attempts were still at the gateway or unwritten at the deadline; others take them over.
    LeftOpen(usize),
}

/// The program, connected and ready to run. Needs a multi-threaded runtime: a rebalance blocks a thread.
pub struct RefundConsumer<G> {
    cfg: Config,
    pool: MySqlPool,
    db: Database,
    ops: TcpListener,
    claimer: Arc<Claimer>,
    worker: Arc<RefundWorker<G>>,
    metrics: Metrics,
    /// What the worker hands its findings to; ends with it.
    workers: JoinSet<()>,
    /// Stops intake and scans, and gives up attempts that wait for their turn.
    stopping: CancellationToken,
}

impl<G> fmt::Debug for RefundConsumer<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefundConsumer").finish_non_exhaustive()
    }
}

impl<G: RefundGateway> RefundConsumer<G> {
    /// Checks the schema and puts the parts together; nothing moves before [`RefundConsumer::run`], and `stop` ends it.
    ///
    /// # Errors
    /// MySQL is away or its schema too old; the message says which command to run.
    pub async fn build(
        cfg: Config,
        gateway: G,
        ops: TcpListener,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let pool = cfg.db.pool().map_err(Error::Setting)?;
        let db = Database::new(
            cfg.db.options().map_err(Error::Setting)?,
            4,
            &DbMetrics::new(&MetricSet::new()),
        );
        schema::check(&db).await?;
        let (metrics, stopping, owner) = (Metrics::new(), stop.child_token(), Uuid::now_v7());
        let claimer = Claimer {
            pool: pool.clone(),
            topics: cfg.topics.clone(),
            policy: cfg.policy.clone(),
            consumer: cfg.intake.consumer_group.clone(),
            owner,
            gateway: gateway.name(),
            native_idempotency: gateway.capabilities().native_idempotency,
            call_deadline: cfg.pay.call_deadline(),
            metrics: metrics.clone(),
            stop: stopping.clone(),
        };
        let mut workers = JoinSet::new();
        let worker = worker(&cfg, gateway, &claimer, &mut workers);
        Ok(Self {
            cfg,
            pool,
            db,
            ops,
            claimer: Arc::new(claimer),
            worker: Arc::new(worker),
            metrics,
            workers,
            stopping,
        })
    }

    /// What `/metrics` shows.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Runs until the token given to `build` is cancelled, then drains within the deadline.
    ///
    /// # Errors
    /// The Kafka client is broken for good, or a task ended early.
    pub async fn run(mut self) -> Result<Drain, Error> {
        let quit = CancellationToken::new();
        let ops = tokio::spawn(ops::serve(
            self.ops,
            self.metrics.registry.clone(),
            ops::Checks::from(&self.db),
            self.stopping.clone(),
            quit.clone(),
        ));
        let mut loops = start_loops(&self.cfg, &self.claimer, &self.worker, &self.stopping)?;
        let ended = tokio::select! {
            // The loops end by the same token, which is no early end.
            biased;
            () = self.stopping.cancelled() => Ok(()),
            Some(ended) = loops.join_next() => Err(early_end(ended)),
            Some(_) = self.workers.join_next() => Err(Error::TaskEnded("a settlement worker")),
        };
        self.stopping.cancel();
        let deadline = Instant::now() + self.cfg.drain();
        let drain = drain(&self.worker, loops, deadline).await;
        quit.cancel();
        // Its own drain takes at most a second.
        let _ = ops.await;
        // Politely, if MySQL answers; its connections end with the process in any case.
        let _ = tokio::time::timeout(CLOSE_DEADLINE, self.pool.close()).await;
        ended.map(|()| drain)
    }
}

fn worker<G: RefundGateway>(
    cfg: &Config,
    gateway: G,
    claimer: &Claimer,
    workers: &mut JoinSet<()>,
) -> RefundWorker<G> {
    let max_open = usize::try_from(cfg.pay.max_open_attempts).unwrap_or(usize::MAX);
    let (settlements, to_settle) = batcher(max_open);
    let settler = Arc::new(Settler {
        pool: claimer.pool.clone(),
        topics: claimer.topics.clone(),
        backoff: LookUpBackoff {
            base: Duration::from_millis(cfg.pay.lookup_backoff_ms),
            cap: Duration::from_millis(cfg.pay.lookup_backoff_max_ms),
        },
        metrics: claimer.metrics.clone(),
    });
    workers.spawn(to_settle.serve(settle::MAX_BATCH, move |batch| {
        let settler = Arc::clone(&settler);
        async move { settler.settle(batch).await }
    }));
    let (mark_sent, to_send) = batcher(max_open);
    let (pool, owner) = (claimer.pool.clone(), claimer.owner);
    workers.spawn(to_send.serve(settle::MAX_BATCH, move |ids| {
        refund::mark_sent(pool.clone(), owner, ids)
    }));
    RefundWorker {
        gateway,
        pool: claimer.pool.clone(),
        owner,
        open: OpenAttempts::new(claimer.metrics.open_attempts.clone()),
        max_open,
        call_deadline: claimer.call_deadline,
        call_permits: Semaphore::new(usize::from(cfg.pay.gateway_parallel_calls)),
        settlements,
        mark_sent,
        metrics: claimer.metrics.clone(),
        tasks: TaskTracker::new(),
        stop: claimer.stop.clone(),
    }
}

type Loops = JoinSet<(&'static str, Result<(), Error>)>;

fn start_loops<G: RefundGateway>(
    cfg: &Config,
    claimer: &Arc<Claimer>,
    worker: &Arc<RefundWorker<G>>,
    stopping: &CancellationToken,
) -> Result<Loops, Error> {
    let client = intake::client_config(cfg.kafka.client(PROGRAM), &cfg.intake);
    let intake = Intake::join(
        client,
        cfg.topics.topic_returns.clone(),
        usize::from(cfg.intake.consumer_batch_max),
        Arc::clone(claimer),
        Arc::clone(worker),
    )?;
    let reconciler = Reconciler {
        claimer: Arc::clone(claimer),
        worker: Arc::clone(worker),
        interval: Duration::from_millis(cfg.reconcile.reconcile_interval_ms),
        initiated_grace_secs: cfg.reconcile.initiated_grace_secs,
        window: cfg.pay.window(),
        metrics: claimer.metrics.clone(),
        sidelined: HashMap::new(),
    };
    let expiry = expiry::run(
        claimer.pool.clone(),
        cfg.intake.inbox_retention_days,
        claimer.metrics.clone(),
        stopping.clone(),
    );
    let mut loops = Loops::new();
    let (stop_intake, stop_scans) = (stopping.clone(), stopping.clone());
    loops.spawn(async move { ("the intake", intake.run(stop_intake).await) });
    loops.spawn(async move {
        reconciler.run(stop_scans).await;
        ("the reconciler", Ok(()))
    });
    loops.spawn(async move {
        expiry.await;
        ("the inbox expiry", Ok(()))
    });
    let gauges = gauges::run(
        claimer.pool.clone(),
        claimer.metrics.clone(),
        stopping.clone(),
    );
    loops.spawn(async move {
        gauges.await;
        ("the gauges", Ok(()))
    });
    Ok(loops)
}

fn early_end(ended: Result<(&'static str, Result<(), Error>), tokio::task::JoinError>) -> Error {
    match ended {
        Ok((_, Err(error))) => error,
        Ok((name, Ok(()))) => Error::TaskEnded(name),
        Err(_) => Error::TaskEnded("a loop"),
    }
}

/// Lets the running claim, calls and settlements end; what was never called is given back at the deadline or before.
async fn drain<G: RefundGateway>(
    worker: &RefundWorker<G>,
    mut loops: Loops,
    deadline: Instant,
) -> Drain {
    let all = async {
        while let Some(ended) = loops.join_next().await {
            if !matches!(ended, Ok((_, Ok(())))) {
                tracing::warn!(error = %early_end(ended), "while stopping");
            }
        }
        worker.tasks.close();
        worker.tasks.wait().await;
    };
    if timeout_at(deadline, all).await.is_err() {
        tracing::warn!("the drain deadline has passed");
    }
    loops.detach_all();
    let given_back = worker.give_back().await;
    match worker.open.count().saturating_sub(given_back) {
        0 => Drain::Complete,
        left => Drain::LeftOpen(left),
    }
}
