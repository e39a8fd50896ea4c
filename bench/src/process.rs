//! CPU time and memory of processes, from /proc.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

/// Where the local stack keeps the process ids of its servers; their CPU and memory are left out without it.
#[derive(Debug, clap::Args)]
pub(crate) struct Servers {
    /// Folder of the local stack.
    #[arg(long, env = "STACK_DIR")]
    stack_dir: Option<PathBuf>,

    /// Instance of the local stack.
    #[arg(long, env = "STACK_INSTANCE")]
    stack_instance: Option<String>,
}

impl Servers {
    pub(crate) fn mysqld(&self) -> anyhow::Result<Option<u32>> {
        self.pid_of("mysql")
    }

    pub(crate) fn kafka(&self) -> anyhow::Result<Option<u32>> {
        self.pid_of("kafka")
    }

    /// `None`: the server was not started by the local stack.
    fn pid_of(&self, server: &str) -> anyhow::Result<Option<u32>> {
        let Some((dir, instance)) = self.stack_dir.as_ref().zip(self.stack_instance.as_ref())
        else {
            return Ok(None);
        };
        let file = dir.join(instance).join(server).join("pid");
        match fs::read_to_string(&file) {
            Ok(pid) => Ok(Some(pid.trim().parse()?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| file.display().to_string()),
        }
    }
}

/// Processes whose CPU time is reported, besides the load generator's.
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

/// Kernel memory of all TCP sockets of the machine, in KiB: data sent and not acknowledged, or received and not read.
pub(crate) fn tcp_buffers_kib() -> anyhow::Result<u64> {
    let sockets = fs::read_to_string("/proc/net/sockstat")?;
    let mut tcp = sockets
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))
        .context("TCP in /proc/net/sockstat")?
        .split_whitespace()
        .skip_while(|word| *word != "mem");
    let pages: u64 = tcp.nth(1).context("mem of TCP")?.parse()?;
    Ok(pages * u64::try_from(rustix::param::page_size())? / 1024)
}

/// User and system time: fields 14 and 15 of /proc/PID/stat, in ticks (proc(5)).
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| -> anyhow::Result<f64> { Ok(fields.get(at).context("stat")?.parse()?) };
    let per_second = rustix::param::clock_ticks_per_second();
    let per_second = f64::from(u32::try_from(per_second)?);
    Ok((ticks(11)? + ticks(12)?) / per_second)
}

/// Resident memory now, in KiB.
pub(crate) fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    status_kib(pid, "VmRSS:")
}

/// Peak resident memory, in KiB.
pub(crate) fn peak_resident_kib(pid: u32) -> anyhow::Result<u64> {
    status_kib(pid, "VmHWM:")
}

fn status_kib(pid: u32, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .with_context(|| format!("{field} of process {pid}"))?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
