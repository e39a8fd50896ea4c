//! CPU time and memory of processes, from /proc.

use std::fs;

use anyhow::Context;

/// Processes whose CPU time is reported beside the generator's own.
pub(crate) struct Pids {
    pub(crate) api: u32,
    pub(crate) mysqld: Option<u32>,
}

/// CPU seconds used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CpuSeconds {
    pub(crate) generator: f64,
    pub(crate) api: f64,
    pub(crate) mysqld: Option<f64>,
}

impl Pids {
    pub(crate) fn cpu(&self) -> anyhow::Result<CpuSeconds> {
        Ok(CpuSeconds {
            generator: cpu_seconds(std::process::id())?,
            api: cpu_seconds(self.api)?,
            mysqld: self.mysqld.map(cpu_seconds).transpose()?,
        })
    }
}

impl CpuSeconds {
    /// Cores used on average over `seconds`.
    pub(crate) fn cores_since(&self, before: &Self, seconds: f64) -> Self {
        Self {
            generator: (self.generator - before.generator) / seconds,
            api: (self.api - before.api) / seconds,
            mysqld: self
                .mysqld
                .zip(before.mysqld)
                .map(|(now, then)| (now - then) / seconds),
        }
    }
}

/// User and system time: fields 14 and 15 of /proc/PID/stat, in ticks (proc(5)).
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| -> anyhow::Result<f64> { Ok(fields.get(at).context("stat")?.parse()?) };
    let per_second = rustix::param::clock_ticks_per_second();
    let per_second = f64::from(u32::try_from(per_second)?);
    Ok((ticks(11)? + ticks(12)?) / per_second)
}

/// Resident memory in KiB.
pub(crate) fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
