//! Faults of MySQL and Kafka, by `deploy/local/stack`.

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
    stack(&[server, verb, &env("STACK_INSTANCE")]).await?;
    Ok(())
}

/// Runs the script; returns its output.
async fn stack(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(SCRIPT)
        .args(args)
        .env_remove("DATABASE_URL")
        .env_remove("KAFKA_BROKERS")
        .output()
        .await
        .context("deploy/local/stack")?;
    ensure!(
        output.status.success(),
        "stack {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/local/stack");

/// For a server that only one test uses.
const SMALL: [&str; 3] = [
    "--innodb-buffer-pool-size=64M",
    "--innodb-redo-log-capacity=64M",
    "--performance-schema=OFF",
];

/// A MySQL server of one test, with fresh data. Dropping it stops the server and deletes the data.
#[derive(Debug)]
pub struct PrivateMysql {
    instance: &'static str,
    /// Of the database `returns`, as root.
    pub url: String,
}

impl PrivateMysql {
    /// Starts it with more options of `mysqld`.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(instance: &'static str, options: &[&str]) -> anyhow::Result<Self> {
        stack(&["wipe", instance]).await?;
        let args = [&["mysql", "up", instance], &SMALL[..], options].concat();
        let url = stack(&args).await?.trim().to_owned();
        Ok(Self { instance, url })
    }
}

impl Drop for PrivateMysql {
    fn drop(&mut self) {
        let wiped = std::process::Command::new(SCRIPT)
            .args(["wipe", self.instance])
            .output();
        if let Err(error) = wiped {
            eprintln!("stack wipe {}: {error}", self.instance);
        }
    }
}
