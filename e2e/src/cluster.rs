//! Three Kafka brokers of one test, from the jars of the local stack. Each is broker and controller (KRaft).

use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use shared::test_support::env;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{free_ports, until};

/// A loaded machine starts a broker in half a minute.
const START_DEADLINE: Duration = Duration::from_secs(180);
const BROKERS: usize = 3;
/// Any 16 bytes in URL-safe Base64.
const CLUSTER_ID: &str = "dGhyZWUtYnJva2Vycy0wMQ";

/// Dropping it kills the brokers.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    jars: PathBuf,
    running: Vec<Option<Child>>,
    /// `KAFKA_BROKERS` of its clients.
    pub brokers: String,
}

impl Cluster {
    /// Starts three brokers with further settings.
    ///
    /// # Errors
    /// There are no jars, or a broker does not start.
    pub async fn start(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let ports = free_ports(2 * BROKERS)?;
        let (own, controllers) = ports.split_at(BROKERS);
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let voters: Vec<String> = (1..)
            .zip(controllers)
            .map(|(id, port)| format!("{id}@{}", address(port)))
            .collect();
        let mut cluster = Self {
            jars: jars()?,
            running: (0..BROKERS).map(|_| None).collect(),
            brokers: own.iter().map(address).collect::<Vec<_>>().join(","),
            folder,
        };
        for broker in 0..BROKERS {
            let listeners = [address(&own[broker]), address(&controllers[broker])];
            let text = cluster.properties(broker, &voters.join(","), &listeners, settings)?;
            fs::write(cluster.file(broker, "properties"), text)?;
            cluster.format(broker).await?;
        }
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Starts all brokers, which were killed or never ran. One alone does not serve: it waits for a second one.
    ///
    /// # Errors
    /// A broker does not start.
    pub async fn start_all(&mut self) -> anyhow::Result<()> {
        for broker in 0..BROKERS {
            self.launch(broker)?;
        }
        for broker in 0..BROKERS {
            self.started(broker).await?;
        }
        Ok(())
    }

    /// SIGSTOP: the broker stands still, and its connections stay open.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self, broker: usize) -> anyhow::Result<()> {
        self.signal(broker, Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self, broker: usize) -> anyhow::Result<()> {
        self.signal(broker, Signal::CONT)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self, broker: usize) -> anyhow::Result<()> {
        let mut child = self.running[broker].take().context("it runs")?;
        Ok(child.kill().await?)
    }

    /// Starts a broker again that was killed.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_again(&mut self, broker: usize) -> anyhow::Result<()> {
        self.launch(broker)?;
        self.started(broker).await
    }

    fn signal(&self, broker: usize, signal: Signal) -> anyhow::Result<()> {
        let child = self.running[broker].as_ref().context("it runs")?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(kill_process(pid.context("it runs")?, signal)?)
    }

    fn file(&self, broker: usize, kind: &str) -> PathBuf {
        self.folder.path().join(format!("{broker}.{kind}"))
    }

    /// Those of the local stack's only broker, with what three brokers need instead. The last value of a name counts.
    fn properties(
        &self,
        broker: usize,
        voters: &str,
        [own, controller]: &[String; 2],
        settings: &[(&str, &str)],
    ) -> anyhow::Result<String> {
        let base =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/kafka/server.properties");
        let mut text = fs::read_to_string(base)?;
        let data = self.file(broker, "data").display().to_string();
        let id = (broker + 1).to_string();
        let listeners = format!("BROKER://{own},CONTROLLER://{controller}");
        let advertised = format!("BROKER://{own}");
        let cluster = [
            ("node.id", id.as_str()),
            ("controller.quorum.voters", voters),
            ("listeners", &listeners),
            ("advertised.listeners", &advertised),
            ("log.dirs", &data),
            ("offsets.topic.replication.factor", "3"),
        ];
        for (name, value) in cluster.iter().chain(settings) {
            writeln!(text, "{name}={value}")?;
        }
        Ok(text)
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-cp"])
            .arg(format!("{}/*", self.jars.display()))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        java
    }

    async fn format(&self, broker: usize) -> anyhow::Result<()> {
        let output = self
            .java()
            .args([
                "kafka.tools.StorageTool",
                "format",
                "--cluster-id",
                CLUSTER_ID,
                "--config",
            ])
            .arg(self.file(broker, "properties"))
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "formatting broker {broker}: {said}"
        );
        Ok(())
    }

    fn launch(&mut self, broker: usize) -> anyhow::Result<()> {
        let log = File::create(self.file(broker, "log"))?;
        let config =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/kafka/log4j2.properties");
        let child = self
            .java()
            .env(
                "JAVA_TOOL_OPTIONS",
                format!("-Dlog4j2.configurationFile={}", config.display()),
            )
            .arg("kafka.Kafka")
            .arg(self.file(broker, "properties"))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.running[broker] = Some(child);
        Ok(())
    }

    async fn started(&self, broker: usize) -> anyhow::Result<()> {
        let log = self.file(broker, "log");
        let serves = until("the broker serves", START_DEADLINE, async || {
            Ok(fs::read_to_string(&log)?.contains("Kafka Server started"))
        });
        serves
            .await
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())
    }
}

/// The jars that the local stack has downloaded.
fn jars() -> anyhow::Result<PathBuf> {
    let stack = PathBuf::from(env("STACK_DIR"));
    let versions = fs::read_dir(&stack)?.filter_map(Result::ok);
    let mut libs = versions
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("kafka-"))
        .map(|entry| entry.path().join("libs"));
    libs.find(|libs| libs.is_dir())
        .with_context(|| format!("no kafka-*/libs in {}", stack.display()))
}
