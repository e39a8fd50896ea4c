//! The built program: its exit codes, its start line, and a process to kill.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::Stage;

const BINARY: &str = env!("CARGO_BIN_EXE_outbox-relay");

/// A relay in a process of its own.
pub(crate) struct Program {
    child: Child,
}

impl Program {
    /// Starts it and waits for its start line.
    pub(crate) async fn start(stage: &Stage, extra: &[&str]) -> Self {
        let mut child = Command::new(BINARY)
            .args(stage.args(extra))
            .env("LOG_FORMAT", "json")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        loop {
            let line = lines
                .next_line()
                .await
                .expect("utf-8")
                .expect("a start line");
            if line.contains("listening") {
                break;
            }
        }
        // The pipe must be emptied, or the program waits when it logs.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child }
    }

    pub(crate) async fn kill_9(mut self) {
        self.child.kill().await.expect("SIGKILL");
    }
}

#[tokio::test]
async fn bad_settings_are_all_told_and_exit_64() {
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
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{told}");
    for name in ["DATABASE_URL", "kafka-brokers", "lease-ms", "batch-rows"] {
        assert!(told.contains(name), "{name} is missing in: {told}");
    }
}

#[tokio::test]
async fn an_old_schema_is_refused_with_the_command_to_run() {
    let db = shared::test_support::TestDb::create_empty().await;
    let output = Command::new(BINARY)
        .args([
            format!("--database-url={}", db.url()),
            "--kafka-brokers=127.0.0.1:9".to_owned(),
        ])
        .output()
        .await
        .expect("the binary");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("returnsctl migrate"));
}

#[tokio::test]
async fn version_and_help_are_answered() {
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
