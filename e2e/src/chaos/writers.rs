//! Writers at a fixed rate: each transaction changes a few returns several times, under their row locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use shared::domain::ids::ReturnId;
use tokio::task::JoinSet;

use super::Plan;
use crate::load::Writer;
use crate::system::System;

const RETURNS_PER_TRANSACTION: usize = 8;
const CHANGES_PER_RETURN: usize = 4;

pub(super) struct Writers {
    written: Arc<AtomicU64>,
    failed: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Writers {
    pub(super) async fn start(
        system: &System,
        plan: &Plan,
        returns: &[ReturnId],
    ) -> anyhow::Result<Self> {
        let (written, failed, stop): (Arc<AtomicU64>, Arc<AtomicBool>, Arc<AtomicBool>) =
            Default::default();
        let per_transaction = u32::try_from(RETURNS_PER_TRANSACTION * CHANGES_PER_RETURN)?;
        let step = Duration::from_secs(1) * per_transaction * u32::try_from(plan.writers)?
            / plan.events_per_second;
        let mut tasks = JoinSet::new();
        for number in 0..plan.writers {
            let options = system.db.pool.connect_options();
            let mut writer = Writer::connect(&options, system.topic_args()).await?;
            // Every writer changes all returns and starts at another one, so that the writers compete for row locks.
            let mut own = returns.to_vec();
            own.rotate_left(number * returns.len() / plan.writers);
            let (written, failed, stop) =
                (Arc::clone(&written), Arc::clone(&failed), Arc::clone(&stop));
            tasks.spawn(async move {
                let outcome = write(&mut writer, &own, step, &written, &stop).await;
                failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                outcome
            });
        }
        Ok(Self {
            written,
            failed,
            stop,
            tasks,
        })
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// # Errors
    /// Whether a writer has failed; `finish` returns the reason.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.failed.load(Ordering::Relaxed), "a writer failed");
        Ok(())
    }

    /// Returns how many events were committed.
    pub(super) async fn finish(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for outcome in self.tasks.join_all().await {
            outcome?;
        }
        Ok(self.written.load(Ordering::Relaxed))
    }
}

async fn write(
    writer: &mut Writer,
    returns: &[ReturnId],
    step: Duration,
    written: &AtomicU64,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut at = Instant::now();
    let mut groups = returns.chunks(RETURNS_PER_TRANSACTION).cycle();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep_until(at.into()).await;
        at += step;
        let group = groups.next().expect("a cycle over some returns");
        let applied = writer.change(group, CHANGES_PER_RETURN).await?;
        written.fetch_add(u64::try_from(applied.len())?, Ordering::Relaxed);
    }
    Ok(())
}
