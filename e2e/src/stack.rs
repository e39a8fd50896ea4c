//! Faults of MySQL and Kafka, by `deploy/local/stack`.

use std::path::Path;

use anyhow::{Context, ensure};
use shared::test_support::env;
use tokio::process::Command;

/// A server of the local stack.
#[derive(Debug, Clone, Copy)]
pub enum Server {
    Mysql,
    Kafka,
}

/// `kill` (-9), `stop` or `start` a server; returns when it has ended, or serves again.
///
/// # Errors
/// The servers came from outside (`DATABASE_URL`, `KAFKA_BROKERS`), or the script failed.
pub async fn control(server: Server, verb: &str) -> anyhow::Result<()> {
    let server = match server {
        Server::Mysql => "mysql",
        Server::Kafka => "kafka",
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/stack");
    let output = Command::new(script)
        .args([server, verb, &env("STACK_INSTANCE")])
        .output()
        .await
        .context("deploy/local/stack")?;
    ensure!(
        output.status.success(),
        "stack {server} {verb}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
