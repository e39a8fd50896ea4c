//! The built program: its exit codes, its start line, and processes for the tests that kill or freeze one.

use std::net::SocketAddr;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::harness::Fixture;

const BINARY: &str = env!("CARGO_BIN_EXE_outbox-relay");

/// A relay in its own process.
pub(crate) struct Program {
    child: Child,
    ops: SocketAddr,
}

impl Program {
    /// Starts it and waits for its start line.
    pub(crate) async fn start(fixture: &Fixture, extra: &[&str]) -> Self {
        Self::start_armed(fixture, extra, "").await
    }

    /// Like [`Self::start`], with kill points. They exist only with the feature `failpoints`.
    pub(crate) async fn start_armed(fixture: &Fixture, extra: &[&str], points: &str) -> Self {
        Self::start_in(fixture, extra, &[("FAILPOINTS", points.to_owned())]).await
    }

    /// Like [`Self::start`], with further variables.
    pub(crate) async fn start_in(
        fixture: &Fixture,
        extra: &[&str],
        variables: &[(&str, String)],
    ) -> Self {
        let mut child = Command::new(BINARY)
            .args(fixture.args(extra))
            .env("LOG_FORMAT", "json")
            .envs(variables.iter().map(|(name, value)| (*name, value)))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let start_line = loop {
            let line = lines
                .next_line()
                .await
                .expect("utf-8")
                .expect("a start line");
            if line.contains("listening") {
                break line;
            }
        };
        let start_line: serde_json::Value = serde_json::from_str(&start_line).expect("JSON");
        let ops = start_line["ops.address"].as_str().expect("an address");
        // Without a reader the pipe fills up, and then the program blocks when it logs.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            child,
            ops: ops.parse().expect("an address"),
        }
    }

    /// The current value in `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let mut response = String::new();
        let mut connection = TcpStream::connect(self.ops).await.expect("it listens");
        let request = b"GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n";
        connection.write_all(request).await.expect("it listens");
        let read = connection.read_to_string(&mut response).await;
        read.expect("text");
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        response.lines().find_map(value).expect("a metric")
    }

    /// SIGSTOP: like a paused virtual machine.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(pid.expect("it runs"), signal).expect("our child process");
    }

    pub(crate) async fn kill_9(mut self) {
        self.child.kill().await.expect("SIGKILL");
    }
}

#[tokio::test]
async fn all_bad_settings_are_reported_with_exit_code_64() {
    let output = Command::new(BINARY)
        .args([
            "--database-url=postgres://h/d",
            "--kafka-brokers=nonsense",
            "--lease-ms=5",
            "--batch-rows=0",
        ])
        .env_clear()
        .output()
        .await
        .expect("the binary");
    let reported = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{reported}");
    for name in ["DATABASE_URL", "kafka-brokers", "lease-ms", "batch-rows"] {
        assert!(reported.contains(name), "{name} is missing in: {reported}");
    }
}

#[tokio::test]
async fn an_old_schema_is_refused_with_the_command_to_run() {
    let db = shared::test_support::TestDb::create_empty().await;
    let output = Command::new(BINARY)
        .args([
            format!("--database-url={}", db.url()),
            "--kafka-brokers=127.0.0.1:9".to_owned(),
            "--database-start-wait-secs=0".to_owned(),
        ])
        .output()
        .await
        .expect("the binary");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("returnsctl migrate"));
}

#[tokio::test]
async fn version_and_help_exit_with_0() {
    for flag in ["--version", "--help"] {
        let output = Command::new(BINARY)
            .arg(flag)
            .output()
            .await
            .expect("the binary");
        assert_eq!(output.status.code(), Some(0), "{flag}");
        assert!(!output.stdout.is_empty(), "{flag}");
    }
}
