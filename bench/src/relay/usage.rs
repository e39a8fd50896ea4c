//! CPU time and memory of the relays and of the servers beside them.

use super::stage::Relays;
use crate::process::{Servers, cpu_seconds, peak_resident_kib};

/// CPU seconds until now, or between two moments.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) relays: f64,
    pub(super) mysqld: f64,
    pub(super) kafka: f64,
}

impl Usage {
    /// Servers that the local stack did not start count as 0.
    pub(super) fn now(relays: &Relays, servers: &Servers) -> anyhow::Result<Self> {
        let of = |pid: Option<u32>| pid.map_or(Ok(0.0), cpu_seconds);
        let mut sum = 0.0;
        for pid in relays.pids() {
            sum += cpu_seconds(pid)?;
        }
        Ok(Self {
            relays: sum,
            mysqld: of(servers.mysqld()?)?,
            kafka: of(servers.kafka()?)?,
        })
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            relays: self.relays - before.relays,
            mysqld: self.mysqld - before.mysqld,
            kafka: self.kafka - before.kafka,
        }
    }

    /// Three figures as text, each divided by `unit`.
    pub(super) fn per(self, unit: f64) -> String {
        format!(
            "{:.2} / {:.2} / {:.2}",
            self.relays / unit,
            self.mysqld / unit,
            self.kafka / unit
        )
    }
}

/// Peak resident memory of the largest relay, in MiB.
pub(super) fn peak_mib(relays: &Relays) -> anyhow::Result<u64> {
    let mut most = 0;
    for pid in relays.pids() {
        most = most.max(peak_resident_kib(pid)? / 1024);
    }
    Ok(most)
}
