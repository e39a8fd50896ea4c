//! A database with returns on chosen shards, new topics, and relays with default settings.

use std::sync::Arc;
use std::time::Duration;

use e2e::load::Writer;
use e2e::program::Program;
use e2e::system::System;
use shared::domain::ids::{OrderId, ReturnId, Shard};
use sqlx::mysql::MySqlConnectOptions;

const STOP_DEADLINE: Duration = Duration::from_secs(60);
const PURGE_DEADLINE: Duration = Duration::from_secs(300);
/// Transactions whose old row versions may remain: an idle server keeps some.
const PURGED: i64 = 1_000;

pub(super) struct Stage {
    pub(super) system: System,
}

impl Stage {
    pub(super) async fn set() -> anyhow::Result<Self> {
        let system = System::create().await?;
        Ok(Self { system })
    }

    pub(super) async fn writer(&self) -> anyhow::Result<Writer> {
        Writer::connect(&self.options(), self.system.topic_args()).await
    }

    pub(super) fn options(&self) -> Arc<MySqlConnectOptions> {
        self.system.db.pool.connect_options()
    }

    /// Files returns of new orders that lie on the first `shards` shards.
    pub(super) async fn file(&self, count: usize, shards: u8) -> anyhow::Result<Vec<ReturnId>> {
        let last = "SELECT COALESCE(MAX(id), 0) FROM orders";
        let orders: Vec<OrderId> = (self.system.count(last).await? + 1..)
            .map(OrderId)
            .filter(|order| Shard::of(*order).0 < shards)
            .take(count)
            .collect();
        self.writer().await?.file(&self.system.db, &orders).await
    }

    pub(super) async fn outbox_rows(&self) -> anyhow::Result<u64> {
        let rows = self.system.count("SELECT COUNT(*) FROM outbox").await?;
        Ok(u64::try_from(rows)?)
    }

    pub(super) async fn all_published(&self, deadline: Duration) -> anyhow::Result<()> {
        e2e::until("every event is published", deadline, async || {
            Ok(self.outbox_rows().await? == 0)
        })
        .await
    }

    /// Waits until InnoDB has cleaned up after the writers, which must not count as cost of the relay.
    pub(super) async fn purged(&self) -> anyhow::Result<()> {
        let history = "SELECT `COUNT` FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'";
        e2e::until("purge has caught up", PURGE_DEADLINE, async || {
            Ok(self.system.count(history).await? < PURGED)
        })
        .await
    }

    pub(super) async fn relays(&self, count: usize) -> anyhow::Result<Relays> {
        Relays::start(&self.system, count).await
    }
}

pub(crate) struct Relays {
    programs: Vec<Program>,
}

impl Relays {
    pub(crate) async fn start(system: &System, count: usize) -> anyhow::Result<Self> {
        let mut programs = Vec::with_capacity(count);
        for _ in 0..count {
            programs.push(system.start("outbox-relay").await?);
        }
        Ok(Self { programs })
    }

    pub(crate) fn programs(&self) -> &[Program] {
        &self.programs
    }

    pub(super) fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.programs.iter().map(Program::pid)
    }

    /// The sum of a counter over the relays.
    pub(super) async fn counter(&self, name: &str) -> anyhow::Result<u64> {
        let mut sum = 0;
        for program in &self.programs {
            sum += program.metric(name).await?;
        }
        Ok(sum)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for program in self.programs {
            program.stop(STOP_DEADLINE).await?;
        }
        Ok(())
    }
}
