//! The parts of the program and the tasks that run them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shared::domain::refund::{AttemptId, Settled};
use shared::runtime::db::{Database, DbMetrics};
use shared::runtime::ops::{self, Checks};
use shared::runtime::schema;
use shared::runtime::tasks::{Stage, Tasks};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::PROGRAM;
use crate::batcher::{BatchQueue, batcher};
use crate::claim::Claimer;
use crate::config::{CONNECTIONS_NEEDED, Config};
use crate::error::Error;
use crate::gateway::RefundGateway;
use crate::gauges::LastRead;
use crate::intake::{self, Intake};
use crate::metrics::Metrics;
use crate::open_attempts::OpenAttempts;
use crate::reconcile::Reconciler;
use crate::refund::{self, RefundWorker};
use crate::settle::{self, LookUpBackoff, NotSettled, Settlement, Settler};
use crate::{expiry, gauges};

/// How the drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    Complete,
    /// This many attempts were still at the gateway or unwritten at the deadline; other consumers take them over.
    LeftOpen(usize),
}

/// The program, connected and ready to run. Needs a multi-threaded runtime: a rebalance blocks a thread.
pub struct RefundConsumer<G> {
    cfg: Config,
    gateway: G,
    db: Shares,
    metrics: Metrics,
    /// Stops intake and scans, and gives up attempts that wait for a call permit.
    stop: CancellationToken,
}

/// A share of the connections for each kind of work, so that slow work of one kind starves no other.
struct Shares {
    all: Database,
    intake: Database,
    scans: Database,
    settle: Database,
    mark_sent: Database,
    /// Reads of earlier attempts, one per gateway call at the same time.
    earlier: Database,
    expiry: Database,
    gauges: Database,
}

impl Shares {
    fn of(all: Database) -> Self {
        let one = || all.share(1);
        let rest = all.max_connections().saturating_sub(CONNECTIONS_NEEDED - 1);
        Self {
            intake: one(),
            scans: one(),
            settle: one(),
            mark_sent: one(),
            earlier: all.share(rest),
            expiry: one(),
            gauges: one(),
            all,
        }
    }
}

impl<G> fmt::Debug for RefundConsumer<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefundConsumer").finish_non_exhaustive()
    }
}

impl<G: RefundGateway> RefundConsumer<G> {
    /// Checks the schema. The work begins with [`RefundConsumer::run`], and `stop` ends it.
    ///
    /// # Errors
    /// MySQL is away or its schema too old; the message says which command to run.
    pub async fn build(cfg: Config, gateway: G, stop: CancellationToken) -> Result<Self, Error> {
        let metrics = Metrics::new();
        let options = cfg.db.options().map_err(Error::Setting)?;
        let db_metrics = DbMetrics::new(&metrics.set);
        let all = Database::new(options, cfg.db.database_max_connections, &db_metrics);
        schema::check(&all).await?;
        Ok(Self {
            cfg,
            gateway,
            db: Shares::of(all),
            metrics,
            stop,
        })
    }

    /// The metrics of `/metrics`.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Runs until the token given to `build` is cancelled, then drains within the deadline. The operator endpoints listen
    /// on `ops`.
    ///
    /// # Errors
    /// The Kafka client is broken for good, or a task ended early.
    pub async fn run(self, ops: TcpListener) -> Result<Drain, Error> {
        let (db, drain, stop) = (self.db.all.clone(), self.cfg.drain(), self.stop.clone());
        let mut tasks = Tasks::new();
        let worker = self.start(&mut tasks, ops)?;
        let late = tasks.run(&stop, drain).await;
        if let Ok(late) = &late
            && !late.is_empty()
        {
            tracing::warn!(tasks = ?late, "the drain deadline has passed");
        }
        let given_back = worker.give_back().await;
        db.close().await;
        late?;
        Ok(match worker.open.count().saturating_sub(given_back) {
            0 => Drain::Complete,
            left => Drain::LeftOpen(left),
        })
    }

    /// Starts every task. The stage that starts last stops first: new work, then calls, then what they report to.
    fn start(self, tasks: &mut Tasks, ops: TcpListener) -> Result<Arc<RefundWorker<G>>, Error> {
        let capacity = usize::try_from(self.cfg.pay.max_open_attempts).unwrap_or(usize::MAX);
        let (settlements, to_settle) = batcher(capacity);
        let (mark_sent, to_mark) = batcher(capacity);
        let last_read = LastRead::new();
        let claimer = claimer(
            &self.cfg,
            &self.gateway,
            &self.db,
            &self.metrics,
            &self.stop,
        );

        let base = tasks.stage();
        self.spawn_ops(base, ops, last_read.clone());
        self.spawn_writers(base, claimer.owner, to_settle, to_mark);

        let (cfg, db, metrics) = (self.cfg, self.db, self.metrics);
        let worker = Arc::new(RefundWorker {
            gateway: self.gateway,
            db: db.earlier,
            owner: claimer.owner,
            open: OpenAttempts::new(metrics.open_attempts.clone()),
            max_open: capacity,
            call_deadline: cfg.pay.call_deadline(),
            call_permits: Semaphore::new(usize::from(cfg.pay.gateway_parallel_calls)),
            settlements,
            mark_sent,
            metrics: metrics.clone(),
            tasks: TaskTracker::new(),
            stop: self.stop,
        });
        let paying = tasks.stage();
        let (paid, stop_paying) = (Arc::clone(&worker), paying.stop());
        paying.spawn("refund worker", async move {
            stop_paying.cancelled().await;
            paid.tasks.close();
            paid.tasks.wait().await;
        });

        let taking = tasks.stage();
        let config = intake::client_config(cfg.kafka.client(PROGRAM), &cfg.intake);
        let intake = Intake::join(
            config,
            cfg.topics.topic_returns,
            usize::from(cfg.intake.consumer_batch_max),
            Arc::new(claimer.clone()),
            Arc::clone(&worker),
        )?;
        let reconciler = Reconciler {
            db: db.scans.clone(),
            // Its claims use the scans' share: a claim of the intake that hangs does not stop them.
            claimer: Arc::new(Claimer {
                db: db.scans,
                ..claimer
            }),
            worker: Arc::clone(&worker),
            interval: Duration::from_millis(cfg.reconcile.reconcile_interval_ms),
            initiated_grace_secs: cfg.reconcile.initiated_grace_secs,
            window: cfg.pay.window(),
            metrics: metrics.clone(),
            sidelined: HashMap::new(),
        };
        let days = cfg.intake.inbox_retention_days;
        let stop = taking.stop();
        taking.spawn_fallible("intake", intake.run(stop.clone()));
        taking.spawn("reconciler", reconciler.run(stop.clone()));
        let expiry = expiry::run(db.expiry, days, metrics.clone(), stop.clone());
        taking.spawn("inbox expiry", expiry);
        taking.spawn("gauges", gauges::run(db.gauges, metrics, last_read, stop));
        Ok(worker)
    }

    fn spawn_ops(&self, stage: &mut Stage, listener: TcpListener, last_read: LastRead) {
        let checks = Checks::with(&self.db.all, move || vec![last_read.check()]);
        let registry = self.metrics.set.registry().clone();
        let serve = ops::serve(listener, registry, checks, self.stop.clone(), stage.stop());
        stage.spawn("operator endpoints", serve);
    }

    /// Starts the writers of the two batches. A write that has begun runs to its end.
    fn spawn_writers(
        &self,
        stage: &mut Stage,
        owner: Uuid,
        to_settle: BatchQueue<Settlement, Result<Settled, NotSettled>>,
        to_mark: BatchQueue<AttemptId, bool>,
    ) {
        let settler = Arc::new(Settler {
            db: self.db.settle.clone(),
            topics: self.cfg.topics.clone(),
            backoff: LookUpBackoff {
                base: Duration::from_millis(self.cfg.pay.lookup_backoff_ms),
                cap: Duration::from_millis(self.cfg.pay.lookup_backoff_max_ms),
            },
            metrics: self.metrics.clone(),
        });
        let settle = to_settle.serve(settle::MAX_BATCH, move |batch| {
            let settler = Arc::clone(&settler);
            async move { settler.settle(batch).await }
        });
        let db = self.db.mark_sent.clone();
        let mark = to_mark.serve(settle::MAX_BATCH, move |ids| {
            refund::mark_sent(db.clone(), owner, ids)
        });
        let stop = stage.stop();
        stage.spawn("settlement writer", until(stop.clone(), settle));
        stage.spawn("sent writer", until(stop, mark));
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    stop.run_until_cancelled(work).await;
}

fn claimer<G: RefundGateway>(
    cfg: &Config,
    gateway: &G,
    db: &Shares,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Claimer {
    Claimer {
        db: db.intake.clone(),
        topics: cfg.topics.clone(),
        policy: cfg.policy.clone(),
        consumer: cfg.intake.consumer_group.clone(),
        owner: Uuid::now_v7(),
        gateway: gateway.name(),
        native_idempotency: gateway.capabilities().native_idempotency,
        call_deadline: cfg.pay.call_deadline(),
        metrics: metrics.clone(),
        stop: stop.clone(),
    }
}
