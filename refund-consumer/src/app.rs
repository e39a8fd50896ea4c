//! The parts of the program and the tasks that run them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shared::domain::refund::{AttemptId, Settled};
use shared::runtime::db::{Database, DbMetrics};
use shared::runtime::ops::{self, Checks};
use shared::runtime::program::Settings;
use shared::runtime::schema;
use shared::runtime::tasks::{Stage, Tasks};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::attempt::NotSettled;
use crate::batcher::{BatchQueue, Batcher, batcher};
use crate::claim::Claimer;
use crate::config::{CONNECTIONS_NEEDED, Config, PROGRAM};
use crate::error::Error;
use crate::floors::{Floors, Sweep};
use crate::foreign::ForeignReport;
use crate::gateway::RefundGateway;
use crate::gauges::LastRead;
use crate::intake::{self, Intake};
use crate::metrics::Metrics;
use crate::open_attempts::OpenAttempts;
use crate::reconcile::{Kind, Reconciler};
use crate::refund::{self, Marked, RefundWorker, Waiters};
use crate::settle::{self, LookUpBackoff, Settlement, Settler};
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
    gateway: G,
    parts: Parts,
}

/// What every task needs some of.
struct Parts {
    cfg: Config,
    db: Shares,
    metrics: Metrics,
    /// Stops intake and scans, and gives up attempts that wait for a call permit.
    stop: CancellationToken,
}

/// A share of the connections for each kind of work, so that slow work of one kind starves no other.
struct Shares {
    all: Database,
    intake: Database,
    /// In the order of [`Kind::ALL`].
    scans: [Database; Kind::ALL.len()],
    sweep: Database,
    settle: Database,
    mark_sent: Database,
    /// Reads of earlier attempts and of orders, one per gateway call at the same time.
    before_calls: Database,
    expiry: Database,
    gauges: Database,
}

impl Shares {
    fn of(all: Database) -> Self {
        let one = || all.share(1);
        let rest = all.max_connections().saturating_sub(CONNECTIONS_NEEDED - 1);
        Self {
            intake: one(),
            scans: Kind::ALL.map(|_| one()),
            sweep: one(),
            settle: one(),
            mark_sent: one(),
            before_calls: all.share(rest),
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
        let consumer = Self::new(cfg, gateway, stop)?;
        consumer.check().await?;
        Ok(consumer)
    }

    /// As [`Self::build`], without asking MySQL.
    ///
    /// # Errors
    /// A setting is bad.
    pub fn new(cfg: Config, gateway: G, stop: CancellationToken) -> Result<Self, Error> {
        let metrics = Metrics::new();
        let options = cfg.db.options().map_err(Error::Setting)?;
        let db_metrics = DbMetrics::new(&metrics.set);
        let all = Database::new(options, cfg.db.database_max_connections, &db_metrics);
        let parts = Parts {
            cfg,
            db: Shares::of(all),
            metrics,
            stop,
        };
        Ok(Self { gateway, parts })
    }

    /// Checks the schema.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub async fn check(&self) -> Result<(), Error> {
        Ok(schema::check(&self.parts.db.all).await?)
    }

    /// The metrics of `/metrics`.
    pub fn metrics(&self) -> Metrics {
        self.parts.metrics.clone()
    }

    /// Runs until the token given to `build` is cancelled, then drains within the deadline. The operator endpoints listen
    /// on `ops`.
    ///
    /// # Errors
    /// The Kafka client is broken for good, or a task ended early.
    pub async fn run(self, ops: TcpListener) -> Result<Drain, Error> {
        let Self { gateway, parts } = self;
        let mut tasks = Tasks::new();
        let worker = parts.start(gateway, &mut tasks, ops)?;
        let late = tasks.run(&parts.stop, parts.cfg.drain()).await;
        if let Ok(late) = &late
            && !late.is_empty()
        {
            tracing::warn!(tasks = ?late, "the drain deadline has passed");
        }
        let given_back = worker.give_back().await;
        parts.db.all.close().await;
        late?;
        Ok(match worker.open.count().saturating_sub(given_back) {
            0 => Drain::Complete,
            left => Drain::LeftOpen(left),
        })
    }
}

impl Parts {
    /// Starts every task. The stage that starts last stops first: new work, then calls, then what they report to.
    fn start<G: RefundGateway>(
        &self,
        gateway: G,
        tasks: &mut Tasks,
        ops: TcpListener,
    ) -> Result<Arc<RefundWorker<G>>, Error> {
        let (settlements, to_settle) = batcher(self.max_open());
        let (mark_sent, to_mark) = batcher(self.max_open());
        let (claimer, last_read) = (self.claimer(&gateway), LastRead::new());
        let worker = self.worker(gateway, claimer.owner, settlements, mark_sent);

        let base = tasks.stage();
        self.spawn_ops(base, ops, last_read.clone());
        self.spawn_writers(base, &worker, to_settle, to_mark);

        let paying = tasks.stage();
        paying.spawn("refund worker", drained(Arc::clone(&worker), paying.stop()));

        let taking = tasks.stage();
        let (stop, metrics) = (taking.stop(), self.metrics.clone());
        let intake = self.intake(&claimer, &worker)?;
        let (db, days) = (self.db.expiry.clone(), self.cfg.intake.inbox_retention_days);
        let expiry = expiry::run(db, days, metrics, stop.clone());
        taking.spawn_fallible("intake", intake.run(stop));
        taking.spawn("inbox expiry", expiry);
        self.spawn_scans(taking, &claimer, &worker, last_read);
        Ok(worker)
    }

    /// Starts the scans, and what says where they begin.
    fn spawn_scans<G: RefundGateway>(
        &self,
        stage: &mut Stage,
        claimer: &Claimer,
        worker: &Arc<RefundWorker<G>>,
        last_read: LastRead,
    ) {
        let (floors, gateway) = (Floors::default(), claimer.gateway.clone());
        for (kind, db) in Kind::ALL.into_iter().zip(&self.db.scans) {
            let scan = self.reconciler(kind, db, claimer, worker, floors.clone());
            stage.spawn(kind.name(), scan.run(stage.stop()));
        }
        let (metrics, stop) = (self.metrics.clone(), stage.stop());
        let (db, interval) = (self.db.sweep.clone(), self.cfg.reconcile.interval());
        let sweep = Sweep {
            db,
            gateway: gateway.clone(),
            floors: floors.clone(),
            foreign: ForeignReport::new(metrics.rows.foreign_attempts.clone()),
            metrics,
        };
        stage.spawn("sweep", sweep.run(interval, stop));
        let (metrics, stop) = (self.metrics.clone(), stage.stop());
        let db = self.db.gauges.clone();
        let gauges = gauges::run(db, gateway, floors, metrics, last_read, stop);
        stage.spawn("gauges", gauges);
    }

    fn max_open(&self) -> usize {
        usize::try_from(self.cfg.pay.max_open_attempts).unwrap_or(usize::MAX)
    }

    fn claimer<G: RefundGateway>(&self, gateway: &G) -> Claimer {
        Claimer {
            db: self.db.intake.clone(),
            topics: self.cfg.topics.clone(),
            consumer: self.cfg.intake.consumer_group.clone(),
            owner: Uuid::now_v7(),
            gateway: gateway.name().clone(),
            native_idempotency: gateway.capabilities().native_idempotency,
            call_deadline: self.cfg.pay.call_deadline(),
            window: self.cfg.pay.window(),
            metrics: self.metrics.clone(),
            stop: self.stop.clone(),
        }
    }

    fn worker<G>(
        &self,
        gateway: G,
        owner: Uuid,
        settlements: Batcher<Settlement, Result<Settled, NotSettled>>,
        mark_sent: Batcher<AttemptId, Marked>,
    ) -> Arc<RefundWorker<G>> {
        let pay = &self.cfg.pay;
        let parallel_calls = usize::from(pay.gateway_parallel_calls);
        Arc::new(RefundWorker {
            gateway,
            db: self.db.before_calls.clone(),
            owner,
            open: OpenAttempts::new(self.metrics.intake.open_attempts.clone()),
            max_open: self.max_open(),
            call_deadline: pay.call_deadline(),
            parallel_calls,
            call_permits: Semaphore::new(parallel_calls),
            payments_waiting: Waiters::default(),
            settlements,
            mark_sent,
            metrics: self.metrics.clone(),
            tasks: TaskTracker::new(),
            stop: self.stop.clone(),
        })
    }

    fn intake<G: RefundGateway>(
        &self,
        claimer: &Claimer,
        worker: &Arc<RefundWorker<G>>,
    ) -> Result<Intake<G>, Error> {
        let cfg = &self.cfg;
        Intake::join(
            intake::client_config(cfg.kafka.client(PROGRAM), &cfg.intake),
            cfg.topics.topic_returns.clone(),
            usize::from(cfg.intake.consumer_batch_max),
            Arc::new(claimer.clone()),
            Arc::clone(worker),
        )
    }

    /// Its claims use its own share of the connections, so that they go on while a claim of the intake hangs.
    fn reconciler<G: RefundGateway>(
        &self,
        kind: Kind,
        db: &Database,
        claimer: &Claimer,
        worker: &Arc<RefundWorker<G>>,
        floors: Floors,
    ) -> Reconciler<G> {
        Reconciler {
            kind,
            claimer: Arc::new(Claimer {
                db: db.clone(),
                ..claimer.clone()
            }),
            db: db.clone(),
            worker: Arc::clone(worker),
            floors,
            interval: self.cfg.reconcile.interval(),
            initiated_grace_secs: self.cfg.reconcile.initiated_grace_secs,
            metrics: self.metrics.clone(),
            sidelined: HashMap::new(),
            taken: HashSet::new(),
        }
    }

    fn spawn_ops(&self, stage: &mut Stage, listener: TcpListener, last_read: LastRead) {
        let checks = Checks::with(&self.db.all, move || vec![last_read.check()]);
        let registry = self.metrics.set.registry().clone();
        let serve = ops::serve(listener, registry, checks, self.stop.clone(), stage.stop());
        stage.spawn("operator endpoints", serve);
    }

    /// Starts the writers of the two batches.
    fn spawn_writers<G: RefundGateway>(
        &self,
        stage: &mut Stage,
        worker: &RefundWorker<G>,
        to_settle: BatchQueue<Settlement, Result<Settled, NotSettled>>,
        to_mark: BatchQueue<AttemptId, Marked>,
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
        let (db, owner) = (self.db.mark_sent.clone(), worker.owner);
        let mark = to_mark.serve(settle::MAX_BATCH, move |ids| {
            refund::mark_sent(db.clone(), owner, ids)
        });
        let (stop, calls) = (stage.stop(), worker.tasks.clone());
        stage.spawn(
            "settlement writer",
            while_needed(stop.clone(), calls.clone(), settle),
        );
        stage.spawn("sent writer", while_needed(stop, calls, mark));
    }
}

/// Writes until the stage stops and no call is left whose outcome would have to be written. After the drain deadline the
/// writer goes on until the process ends: a provider may not report an outcome again.
async fn while_needed(
    stop: CancellationToken,
    calls: TaskTracker,
    write: impl Future<Output = ()>,
) {
    let over = async {
        stop.cancelled().await;
        calls.wait().await;
    };
    tokio::select! {
        () = write => {}
        () = over => {}
    }
}

/// Lets the calls and settlements in flight end.
async fn drained<G>(worker: Arc<RefundWorker<G>>, stop: CancellationToken) {
    stop.cancelled().await;
    worker.tasks.close();
    worker.tasks.wait().await;
}
