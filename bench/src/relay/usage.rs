//! CPU time and memory of the relays and of the servers beside them.

use super::stage::Relays;
use crate::process::{Servers, cpu_seconds, peak_resident_kib};

/// CPU seconds until now, or between two moments.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(super) relays: f64,
    pub(super) mysqld: f64,
    pub(super) kafka: f64,
}

impl Usage {
    /// Servers that the local stack did not start count as 0.
    pub(crate) fn now(relays: &Relays, servers: &Servers) -> anyhow::Result<Self> {
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

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            relays: self.relays - before.relays,
            mysqld: self.mysqld - before.mysqld,
            kafka: self.kafka - before.kafka,
        }
    }

    /// Of relays, mysqld and Kafka.
    pub(crate) fn seconds(self) -> [f64; 3] {
        [self.relays, self.mysqld, self.kafka]
    }

    /// Three figures as text, each divided by `unit`.
    pub(super) fn per(self, unit: f64) -> String {
        let [relays, mysqld, kafka] = self.seconds().map(|seconds| seconds / unit);
        format!("{relays:.2} / {mysqld:.2} / {kafka:.2}")
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
