//! The relays and their faults.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use shared::runtime::db;
use sqlx::mysql::MySqlPool;
use sqlx::{Connection, MySqlConnection};

use super::{Fault, Plan};
use crate::program::Program;
use crate::system::System;
use crate::until;

const DEADLINE: Duration = Duration::from_secs(30);
/// How much longer than its lease a relay stays frozen.
const OVERSLEEP: Duration = Duration::from_millis(500);

struct Member {
    program: Program,
    /// Its name in `outbox_relay` and `outbox_lease`.
    id: String,
}

/// The result of one fault.
pub(super) struct Injected {
    /// How long the shards of the victim had no live owner.
    pub(super) took: Duration,
    /// Rows that the victim had sent or was about to send, and had not deleted.
    pub(super) under_way: u64,
}

pub(super) struct Fleet<'a> {
    system: &'a System,
    members: Vec<Member>,
    lease_ms: String,
}

impl<'a> Fleet<'a> {
    pub(super) async fn start(system: &'a System, plan: &Plan) -> anyhow::Result<Self> {
        let mut fleet = Self {
            system,
            members: Vec::new(),
            lease_ms: plan.lease.as_millis().to_string(),
        };
        for _ in 0..plan.relays {
            fleet.add().await?;
        }
        Ok(fleet)
    }

    fn pool(&self) -> &MySqlPool {
        &self.system.db.pool
    }

    /// Starts a relay. Its name is the one that is new in the list of live relays.
    async fn add(&mut self) -> anyhow::Result<()> {
        let known: Vec<String> = self.names().await?;
        let more = [("LEASE_MS", self.lease_ms.as_str())];
        let program = self.system.start_with("outbox-relay", &more).await?;
        let mut id = None;
        until("a new relay shows itself", DEADLINE, async || {
            id = self
                .names()
                .await?
                .into_iter()
                .find(|id| !known.contains(id));
            Ok(id.is_some())
        })
        .await?;
        let id = id.context("waited for")?;
        self.members.push(Member { program, id });
        Ok(())
    }

    async fn names(&self) -> anyhow::Result<Vec<String>> {
        Ok(sqlx::query_scalar("SELECT id FROM outbox_relay")
            .fetch_all(self.pool())
            .await?)
    }

    /// Injects the fault into a relay that owns shards. A relay that ended is replaced.
    pub(super) async fn inject(&mut self, fault: Fault) -> anyhow::Result<Injected> {
        let (victim, shards) = self.victim().await?;
        let under_way = self.members[victim]
            .program
            .metric("outbox_relay_unsettled_rows")
            .await?;
        let took = self.inject_into(victim, &shards, fault).await?;
        Ok(Injected { took, under_way })
    }

    async fn inject_into(
        &mut self,
        victim: usize,
        shards: &[u8],
        fault: Fault,
    ) -> anyhow::Result<Duration> {
        let victim_id = self.members[victim].id.clone();
        match fault {
            Fault::Kill => {
                let member = self.members.remove(victim);
                let begun = Instant::now();
                member.program.kill().await?;
                self.taken_over(&victim_id, shards).await?;
                let took = begun.elapsed();
                self.add().await?;
                Ok(took)
            }
            Fault::Stop => {
                let member = self.members.remove(victim);
                let begun = Instant::now();
                let stopping = tokio::spawn(member.program.stop(DEADLINE));
                self.taken_over(&victim_id, shards).await?;
                let took = begun.elapsed();
                stopping.await??;
                self.add().await?;
                Ok(took)
            }
            Fault::Freeze => self.freeze(victim, shards).await,
            Fault::FreezeInDelete => {
                let holder = self.hold_a_delete(shards).await?;
                self.members[victim].program.freeze()?;
                let begun = Instant::now();
                // The server finishes the DELETE of a client that does not read.
                holder.close().await?;
                self.thaw_when_taken_over(victim, shards, begun).await
            }
        }
    }

    async fn freeze(&mut self, victim: usize, shards: &[u8]) -> anyhow::Result<Duration> {
        self.members[victim].program.freeze()?;
        self.thaw_when_taken_over(victim, shards, Instant::now())
            .await
    }

    async fn thaw_when_taken_over(
        &mut self,
        victim: usize,
        shards: &[u8],
        begun: Instant,
    ) -> anyhow::Result<Duration> {
        let id = self.members[victim].id.clone();
        self.taken_over(&id, shards).await?;
        let took = begun.elapsed();
        tokio::time::sleep(OVERSLEEP).await;
        let program = &mut self.members[victim].program;
        program.thaw()?;
        ensure!(!program.has_ended()?, "a relay that woke up late ended");
        Ok(took)
    }

    /// The relay with the most shards, and its shards.
    async fn victim(&self) -> anyhow::Result<(usize, Vec<u8>)> {
        let mut most = (0, Vec::new());
        until("a relay owns shards", DEADLINE, async || {
            for (at, member) in self.members.iter().enumerate() {
                let shards: Vec<u8> =
                    sqlx::query_scalar("SELECT shard FROM outbox_lease WHERE owner = ?")
                        .bind(&member.id)
                        .fetch_all(self.pool())
                        .await?;
                if shards.len() > most.1.len() {
                    most = (at, shards);
                }
            }
            Ok(!most.1.is_empty())
        })
        .await?;
        Ok(most)
    }

    /// Waits until each of these shards belongs to another relay.
    async fn taken_over(&self, from: &str, shards: &[u8]) -> anyhow::Result<()> {
        until("every shard is taken over", DEADLINE, async || {
            let leases: Vec<(u8, Option<String>)> =
                sqlx::query_as("SELECT shard, owner FROM outbox_lease")
                    .fetch_all(self.pool())
                    .await?;
            let left = leases.iter().filter(|(shard, owner)| {
                shards.contains(shard) && owner.as_ref().is_none_or(|owner| owner == from)
            });
            Ok(left.count() == 0)
        })
        .await
    }

    /// Locks rows of these shards until a DELETE waits for one; the connection holds the lock.
    async fn hold_a_delete(&self, shards: &[u8]) -> anyhow::Result<MySqlConnection> {
        let mut holder = db::connect(&self.pool().connect_options()).await?;
        until("a DELETE waits for our lock", DEADLINE, async || {
            sqlx::raw_sql("ROLLBACK; BEGIN").execute(&mut holder).await?;
            for shard in shards {
                sqlx::query("SELECT id FROM outbox WHERE shard = ? ORDER BY id LIMIT 1 FOR UPDATE")
                    .bind(shard)
                    .fetch_optional(&mut holder)
                    .await?;
            }
            tokio::time::sleep(Duration::from_millis(60)).await;
            let waiting: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM performance_schema.data_lock_waits AS w \
                 JOIN performance_schema.threads AS t ON t.thread_id = w.requesting_thread_id \
                 WHERE t.processlist_info LIKE '%delete_published%' AND t.processlist_db = DATABASE()",
            )
            .fetch_one(&mut holder)
            .await?;
            Ok(waiting > 0)
        })
        .await?;
        Ok(holder)
    }

    pub(super) async fn finish(self) -> anyhow::Result<()> {
        for member in self.members {
            member.program.stop(DEADLINE).await?;
        }
        Ok(())
    }
}
