//! A program is started while MySQL is away: it waits, and says why.

use std::net::{SocketAddr, TcpListener};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use e2e::program::{bin_dir, run_to_end};
use e2e::system::System;
use e2e::until;
use rustix::process::{Pid, Signal, kill_process};
use shared::test_support::mysql_proxy::MysqlProxy;
use tokio::process::{Child, Command};

const DEADLINE: Duration = Duration::from_secs(30);
const PROGRAMS: [&str; 3] = ["returns-api", "outbox-relay", "refund-consumer"];

/// A program that is not ready yet, so its addresses must be known beforehand.
struct Starting {
    name: &'static str,
    child: Child,
    ops: SocketAddr,
}

impl Starting {
    fn begin(name: &'static str, system: &System) -> anyhow::Result<Self> {
        let ops = free_address()?;
        let child = Command::new(bin_dir()?.join(name))
            .env_clear()
            .envs(&system.env)
            .env("OPS_LISTEN", ops.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { name, child, ops })
    }

    /// Status and text of an operator's page.
    async fn page(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let response = reqwest::get(format!("http://{}{path}", self.ops)).await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Waits until `/readyz` has this status; returns its text.
    async fn readiness(&mut self, status: u16) -> anyhow::Result<String> {
        until(self.name, DEADLINE, async || {
            anyhow::ensure!(self.child.try_wait()?.is_none(), "it has ended");
            let page = self.page("/readyz").await;
            Ok(page
                .ok()
                .filter(|(now, _)| *now == status)
                .map(|(_, text)| text))
        })
        .await
    }

    async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let pid = self.child.id().context("it runs")?;
        let pid = Pid::from_raw(pid.cast_signed()).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        Ok(tokio::time::timeout(DEADLINE, self.child.wait()).await??)
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A system whose MySQL refuses connections.
async fn without_mysql() -> anyhow::Result<(System, SocketAddr)> {
    let mut system = System::create().await?;
    let nobody = free_address()?;
    let url = format!("mysql://root@{nobody}/returns");
    system.env.insert("DATABASE_URL".to_owned(), url);
    Ok((system, nobody))
}

#[tokio::test]
async fn a_program_waits_for_mysql_and_then_works() -> anyhow::Result<()> {
    let mut system = System::create().await?;
    let (proxy, url) = MysqlProxy::before(system.db.url()).await;
    system.env.insert("DATABASE_URL".to_owned(), url);
    proxy.go_away();
    let mut programs = Vec::new();
    for name in PROGRAMS {
        programs.push(Starting::begin(name, &system)?);
    }
    for program in &mut programs {
        let reason = program.readiness(503).await?;
        let server = format!("waiting for MySQL at {}: ", proxy.address);
        assert!(reason.starts_with(&server), "{reason}");
        assert_eq!(program.page("/livez").await?, (200, "ok\n".to_owned()));
        assert_eq!(program.page("/metrics").await?.0, 200);
    }
    proxy.come_back();
    for program in &mut programs {
        assert_eq!(program.readiness(200).await?, "ready\n");
    }
    for program in programs {
        let name = program.name;
        assert_eq!(program.stop().await?.code(), Some(0), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn p11_a_program_that_waits_stops_when_it_is_told() -> anyhow::Result<()> {
    let (system, _) = without_mysql().await?;
    for name in PROGRAMS {
        let mut program = Starting::begin(name, &system)?;
        let reason = program.readiness(503).await?;
        assert!(reason.contains("Connection refused"), "{reason}");
        assert_eq!(program.stop().await?.code(), Some(0), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_program_that_waited_in_vain_names_server_and_cause() -> anyhow::Result<()> {
    let (mut system, nobody) = without_mysql().await?;
    let wait = ("DATABASE_START_WAIT_SECS".to_owned(), "1".to_owned());
    system.env.extend([wait]);
    for name in PROGRAMS {
        let ended = run_to_end(name, &[], &system.env).await?;
        let written = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{name}: {written}");
        for part in [
            format!("MySQL at {nobody} cannot be used after "),
            "Connection refused".to_owned(),
        ] {
            assert!(written.contains(&part), "{name}: {written}");
        }
    }
    Ok(())
}

/// A command of a person fails at once instead.
#[tokio::test]
async fn a_command_does_not_wait() -> anyhow::Result<()> {
    let (system, nobody) = without_mysql().await?;
    let ended = run_to_end("returnsctl", &["outbox", "stats"], &system.env).await?;
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    let message = format!("cannot reach MySQL at {nobody}");
    assert!(ended.stderr.contains(&message), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("Connection refused"),
        "{}",
        ended.stderr
    );
    Ok(())
}
