//! Moves committed outbox rows to Kafka: every row at least once, the events of one return in the order of their seq.
//!
//! A relay owns shards by [`lease`]. It reads the pending rows of its shards, sends them in order, and deletes the rows
//! that Kafka has acknowledged ([`pump`]). It does not interpret events: rows are sent as they were written. Consumers
//! deduplicate by event id.

pub mod config;
pub mod error;

pub mod lease;
mod rebalance;

pub mod pump;

mod owned_shards;
mod shard_state;

mod cursor;
mod held;
mod held_counter;
pub mod in_flight;
mod parked_keys;
mod partitions;
pub mod pending;
pub mod predecessor;

mod outbox_reader;
pub mod pace;
mod read_ahead;

mod delivery;
pub mod publisher;
mod spans;
mod topics;

mod deleter;
pub mod store;

mod backlog_gauges;
pub mod metrics;
mod troubled_topics;

use std::time::Duration;

use shared::runtime::db::Database;
use shared::runtime::tasks::{Finished, Tasks};
use shared::runtime::{ops, schema};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::backlog_gauges::BacklogGauges;
use crate::config::Config;
use crate::error::RelayError;
use crate::lease::LeaseKeeper;
use crate::metrics::Metrics;
use crate::publisher::Publish;
use crate::pump::Pump;

/// A relay that has checked the schema and is ready to run.
#[derive(Debug)]
pub struct Relay<P> {
    cfg: Config,
    database: Database,
    publisher: P,
    metrics: Metrics,
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    Complete,
    /// The number of rows whose delivery or deletion was not confirmed at the deadline. They are still in the outbox, and
    /// the next owner sends them again.
    LeftInFlight(usize),
    /// The pump did not end before its deadline, so the number of these rows is not known. Its leases are left to expire.
    PumpLate,
}

/// The tasks that stop after the pump only run single statements then.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

impl<P: Publish> Relay<P> {
    /// Checks the schema. Binds no port and sends nothing.
    ///
    /// # Errors
    /// MySQL is away, or the schema is too old (the message names the command to run).
    pub async fn connect(cfg: Config, publisher: P) -> Result<Self, RelayError> {
        let relay = Self::new(cfg, publisher)?;
        relay.check().await?;
        Ok(relay)
    }

    /// As [`Self::connect`], without asking MySQL.
    ///
    /// # Errors
    /// A setting is bad.
    pub fn new(cfg: Config, publisher: P) -> Result<Self, RelayError> {
        let options = cfg.db.options().map_err(RelayError::Settings)?;
        let metrics = Metrics::new();
        Ok(Self {
            database: Database::new(options, 1, &metrics.database),
            cfg,
            publisher,
            metrics,
        })
    }

    /// Checks the schema.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn check(&self) -> Result<(), RelayError> {
        schema::check(&self.database).await?;
        // Each task gets connections of its own.
        self.database.close().await;
        Ok(())
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Runs until `stop`. Then the pump flushes and deletes, and only after that the leases are released.
    ///
    /// # Errors
    /// A task ended early: the process should exit.
    pub async fn run(
        self,
        ops_listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<Drain, RelayError> {
        // The turn in progress at `stop` may look up and park before the pump's own deadline begins.
        let turn = self.cfg.lease() / lease::RENEWALS * 2;
        let drain = turn + self.cfg.pump.drain() + CLOSE_DEADLINE;
        let (tasks, left) = self.tasks(ops_listener, &stop);
        let late = tasks.run(&stop, drain).await?;
        if !late.is_empty() {
            tracing::warn!(tasks = ?late, "tasks did not end before the drain deadline");
        }
        match left.take() {
            Some(0) => {
                tracing::info!("stopped");
                Ok(Drain::Complete)
            }
            Some(rows) => {
                tracing::warn!(
                    rows,
                    "stopped at the drain deadline; rows in flight stay in the outbox"
                );
                Ok(Drain::LeftInFlight(rows))
            }
            None => {
                tracing::warn!(
                    "stopped before the pump had ended; rows in flight stay in the outbox"
                );
                Ok(Drain::PumpLate)
            }
        }
    }

    /// In the order of their start; they stop in the reverse order.
    fn tasks(
        self,
        ops_listener: TcpListener,
        stop: &CancellationToken,
    ) -> (Tasks, Finished<usize>) {
        let (database, metrics) = (&self.database, self.metrics);
        let mut tasks = Tasks::new();

        let observed = tasks.stage();
        let troubled = metrics.troubled_topics.clone();
        observed.spawn(
            "operator endpoints",
            ops::serve(
                ops_listener,
                metrics.registry().clone(),
                ops::Checks::with(database, move || vec![troubled.check()]),
                stop.clone(),
                observed.stop(),
            ),
        );
        let gauges = BacklogGauges::new(database.separate(1), metrics.clone());
        observed.spawn("backlog gauges", gauges.run(observed.stop()));

        let (keeper, leases) =
            LeaseKeeper::new(database.separate(1), self.cfg.lease(), metrics.clone());
        let (pump, helpers) = Pump::new(self.cfg.pump, database, self.publisher, leases, metrics);
        let owning = tasks.stage();
        let pump_ended = CancellationToken::new();
        let keep = keeper.run(stop.clone(), pump_ended.clone(), owning.stop());
        owning.spawn("lease keeper", keep);

        let serving = tasks.stage();
        serving.spawn("outbox reader", helpers.reader.run(serving.stop()));
        serving.spawn("held row counter", helpers.counter.run(serving.stop()));
        for worker in helpers.delete_workers {
            serving.spawn("delete worker", worker.run(serving.stop()));
        }

        let pumping = tasks.stage();
        let run = pump.run(pumping.stop());
        let left = pumping.spawn_fallible("pump", async move {
            // Also after a panic: a pump that has ended has no producer any more.
            let _ended = pump_ended.drop_guard();
            run.await
        });
        (tasks, left)
    }
}
