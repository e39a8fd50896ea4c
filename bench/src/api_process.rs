//! The api under load: the release binary as a process of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How filings are put into transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grouping {
    /// The default settings.
    GroupCommit,
    /// One transaction per request, with this many in flight.
    BatchesOfOne(u16),
}

pub(crate) struct ApiProcess {
    child: Child,
    address: SocketAddr,
    pid: u32,
}

const START_DEADLINE: Duration = Duration::from_secs(20);

impl ApiProcess {
    pub(crate) async fn start(
        bin_dir: &Path,
        database_url: &str,
        public_key: &Path,
        grouping: Grouping,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(bin_dir.join("returns-api"));
        command
            .env("DATABASE_URL", database_url)
            .env("JWT_PUBLIC_KEY_FILE", public_key)
            .env("API_LISTEN", "127.0.0.1:0")
            .env("OPS_LISTEN", "127.0.0.1:0")
            .env("LOG_FORMAT", "json")
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Grouping::BatchesOfOne(writers) = grouping {
            command
                .env("FILING_BATCH_MAX", "1")
                .env("FILING_WRITERS", writers.to_string())
                .env("DATABASE_MAX_CONNECTIONS", (writers + 8).to_string());
        }
        let mut child = command.spawn()?;
        let pid = child.id().context("the api ended at once")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut last = String::new();
        let listening = async {
            while let Some(line) = lines.next_line().await? {
                let record: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(address) = record["api.address"].as_str() {
                    return Ok(address.parse()?);
                }
                last = line;
            }
            anyhow::bail!("the api ended: {last}")
        };
        let address = tokio::time::timeout(START_DEADLINE, listening).await??;
        // Keep reading, or the api blocks on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self {
            child,
            address,
            pid,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// SIGTERM, and its exit code must be 0.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.child.wait().await?;
        anyhow::ensure!(status.success(), "the api ended with {status}");
        Ok(())
    }
}
