//! Nobody reads the log any more: a collector that hangs, or one that has ended.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use e2e::program::bin_dir;
use e2e::system::{CUSTOMER, System};
use e2e::{checks, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

/// Far above what a busy machine needs for the thousands of requests whose lines fill the queue.
const DEADLINE: Duration = Duration::from_secs(300);
const ORDERS: i64 = 20;

/// A program whose log was read up to the start line.
struct Unread {
    child: Child,
    start_line: Value,
    /// The end of the pipe; without it a write of the program fails.
    log: Option<BufReader<ChildStderr>>,
}

impl Unread {
    async fn start(name: &str, system: &System) -> anyhow::Result<Self> {
        let mut child = Command::new(bin_dir()?.join(name))
            .env_clear()
            .envs(&system.env)
            .envs([("LOG_FORMAT", "json"), ("RUST_LOG", "trace")])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = child.stderr.take().context("a pipe")?;
        let mut log = BufReader::new(stderr);
        let mut line = String::new();
        loop {
            line.clear();
            anyhow::ensure!(log.read_line(&mut line).await? > 0, "{name} ended");
            let record: Value = serde_json::from_str(&line)?;
            if record["message"] == "listening" {
                return Ok(Self {
                    child,
                    start_line: record,
                    log: Some(log),
                });
            }
        }
    }

    fn address(&self, field: &str) -> anyhow::Result<std::net::SocketAddr> {
        let address = self.start_line[field].as_str().context("an address")?;
        Ok(address.parse()?)
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(pid.context("it has ended")?, Signal::TERM)?;
        let status = tokio::time::timeout(DEADLINE, self.child.wait()).await??;
        anyhow::ensure!(status.success(), "{status}");
        Ok(())
    }
}

async fn refund_all(system: &System, api: &Unread) -> anyhow::Result<()> {
    let address = api.address("api.address")?;
    for order in 1..=ORDERS {
        let filed = system.customer.file(address, order, None).await?;
        anyhow::ensure!(filed.status == 201, "{filed:?}");
    }
    system.settled(DEADLINE).await?;
    checks::everything(system).await
}

#[tokio::test]
async fn p6_programs_work_and_stop_while_their_logs_are_not_read() -> anyhow::Result<()> {
    let system = System::create().await?;
    system.db.seed_orders(1, ORDERS, CUSTOMER).await;
    let api = Unread::start("returns-api", &system).await?;
    let relay = Unread::start("outbox-relay", &system).await?;
    let consumer = Unread::start("refund-consumer", &system).await?;
    refund_all(&system, &api).await?;
    let metrics = format!("http://{}/metrics", api.address("ops.address")?);
    let address = api.address("api.address")?;
    until("lines are dropped and counted", DEADLINE, async || {
        let reads = (0..100).map(|_| system.customer.get(address, "/orders"));
        futures_util::future::try_join_all(reads).await?;
        let page = reqwest::get(&metrics).await?.text().await?;
        let dropped = page
            .lines()
            .find_map(|line| line.strip_prefix("log_lines_dropped_total "));
        Ok(dropped.context("the metric")? != "0")
    })
    .await?;
    for program in [api, relay, consumer] {
        program.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn p6_programs_work_and_stop_after_the_reader_of_their_logs_has_ended() -> anyhow::Result<()>
{
    let system = System::create().await?;
    system.db.seed_orders(1, ORDERS, CUSTOMER).await;
    let mut api = Unread::start("returns-api", &system).await?;
    let mut relay = Unread::start("outbox-relay", &system).await?;
    let mut consumer = Unread::start("refund-consumer", &system).await?;
    for program in [&mut api, &mut relay, &mut consumer] {
        program.log = None;
    }
    refund_all(&system, &api).await?;
    for program in [api, relay, consumer] {
        program.stop().await?;
    }
    Ok(())
}
