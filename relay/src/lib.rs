//! Moves committed outbox rows to Kafka: every row at least once, one return's events in the order of their seq.
//!
//! A relay owns shards by lease ([`lease`]), reads what is pending in them, enqueues it in order, and deletes what
//! Kafka has acknowledged ([`pump`]). Nothing in it decides what an event says: rows pass through as they were
//! written. Readers deduplicate by event id.

pub mod config;
pub mod error;

pub mod lease;
pub mod pump;

pub mod acks;
pub mod cursor;
pub mod pace;
pub mod pending;
pub mod predecessor;
mod shard_work;

pub mod publisher;
mod topics;

mod deleter;
mod reader;
mod session;
pub mod store;

mod census;
pub mod metrics;

use std::time::Duration;

use shared::runtime::db::{Database, DbMetrics};
use shared::runtime::metrics::MetricSet;
use shared::runtime::{ops, schema};
use sqlx::mysql::{MySqlConnectOptions, MySqlPool};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::RelayError;
use crate::lease::Keeper;
use crate::metrics::Metrics;
use crate::publisher::Publish;
use crate::pump::Pump;

/// A started relay: its listener is bound and the schema is checked.
#[derive(Debug)]
pub struct Relay<P> {
    cfg: Config,
    options: MySqlConnectOptions,
    pool: MySqlPool,
    db: Database,
    publisher: P,
    ops_listener: TcpListener,
    metrics: Metrics,
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    Complete,
    /// Rows whose delivery or deletion was not known at the deadline: still in the outbox, and sent again from there.
    LeftInFlight(usize),
}

/// What ends after the pump: releasing leases and saying good-bye are single statements.
const GOODBYE: Duration = Duration::from_secs(3);

impl<P: Publish> Relay<P> {
    /// Checks settings and schema. Binds nothing and sends nothing.
    ///
    /// # Errors
    /// MySQL is away, or the schema is too old (the message names the command to run).
    pub async fn build(
        cfg: Config,
        publisher: P,
        ops_listener: TcpListener,
    ) -> Result<Self, RelayError> {
        let options = cfg.db.options().map_err(RelayError::Settings)?;
        // Readiness and the schema check; the work has connections of its own.
        let pool = shared::runtime::db::pool_options(2).connect_lazy_with(options.clone());
        let db = Database::new(options.clone(), 2, &DbMetrics::new(&MetricSet::new()));
        schema::check(&db).await?;
        Ok(Self {
            cfg,
            options,
            pool,
            db,
            publisher,
            ops_listener,
            metrics: Metrics::new(),
        })
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Works until `stop`; then flushes, deletes, and only then gives its leases back.
    ///
    /// # Errors
    /// Something that must go on for ever ended early: the process should end, loudly.
    pub async fn run(self, stop: CancellationToken) -> Result<Drain, RelayError> {
        let quit = CancellationToken::new();
        // Helpers end with this function, also when it fails.
        let _quit_at_the_end = quit.clone().drop_guard();
        let ops = tokio::spawn(ops::serve(
            self.ops_listener,
            self.metrics.registry().clone(),
            ops::Checks::from(&self.db),
            stop.clone(),
            quit.clone(),
        ));
        let census = tokio::spawn(census::watch(
            self.options.clone(),
            self.metrics.clone(),
            quit.clone(),
        ));
        let (keeper, leases) =
            Keeper::new(self.options.clone(), self.cfg.lease(), self.metrics.clone());
        let release = quit.child_token();
        let keeper = tokio::spawn(keeper.run(stop.clone(), release.clone()));
        let pump = Pump::new(
            self.cfg.pump.clone(),
            &self.options,
            self.publisher,
            leases,
            self.metrics.clone(),
            &quit,
        );
        let left = tokio::spawn(pump.run(stop)).await;
        release.cancel();
        finish("lease keeper", keeper).await;
        quit.cancel();
        finish("census", census).await;
        finish("operator endpoints", ops).await;
        self.pool.close().await;
        match left.map_err(|_| RelayError::TaskEnded("pump"))?? {
            0 => Ok(Drain::Complete),
            left => Ok(Drain::LeftInFlight(left)),
        }
    }
}

async fn finish(name: &str, task: JoinHandle<()>) {
    match tokio::time::timeout(GOODBYE, task).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the {name} panicked"),
        Err(_) => tracing::warn!("the {name} did not end in time"),
    }
}
