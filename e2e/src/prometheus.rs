//! A real Prometheus with the configuration and the rules of deploy/prometheus, which scrapes the programs of a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{free_ports, until};

/// A first start downloads it.
const START_DEADLINE: Duration = Duration::from_secs(600);

/// The targets of the example.
const EXAMPLES: [(&str, &str); 3] = [
    ("returns-api", "127.0.0.1:9101"),
    ("outbox-relay", "127.0.0.1:9102"),
    ("refund-consumer", "127.0.0.1:9103"),
];

/// The labels of one series, the name of the metric as `__name__`.
pub type Series = BTreeMap<String, String>;

/// Dropping it kills the server.
#[derive(Debug)]
pub struct Prometheus {
    url: String,
    client: reqwest::Client,
    server: Child,
    _folder: TempDir,
}

impl Prometheus {
    /// Scrapes the targets: one address for each job of deploy/prometheus/prometheus.yml. `seconds` replaces the time between
    /// two scrapes, and between two evaluations.
    ///
    /// # Errors
    /// It does not start, or the configuration has changed.
    pub async fn start(
        targets: &[(&str, SocketAddr)],
        seconds: Option<u32>,
    ) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, configuration(targets, seconds)?)?;
        let address = format!("127.0.0.1:{}", free_ports(1)?[0]);
        let log = folder.path().join("log");
        let output = File::create(&log)?;
        let data = folder.path().join("data");
        let server = Command::new(repository().join("deploy/local/prometheus"))
            .arg("server")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()?;
        let mut prometheus = Self {
            url: format!("http://{address}"),
            client: reqwest::Client::new(),
            server,
            _folder: folder,
        };
        let serves = prometheus.serves().await;
        serves.with_context(|| fs::read_to_string(log).unwrap_or_default())?;
        Ok(prometheus)
    }

    async fn serves(&mut self) -> anyhow::Result<()> {
        let ready = format!("{}/-/ready", self.url);
        until("Prometheus serves", START_DEADLINE, async || {
            ensure!(self.server.try_wait()?.is_none(), "Prometheus has ended");
            let answer = self.client.get(&ready).send().await;
            Ok(answer.is_ok_and(|answer| answer.status().is_success()))
        })
        .await
    }

    /// The series that an expression returns now.
    ///
    /// # Errors
    /// Prometheus refuses the expression or does not respond.
    pub async fn query(&self, expression: &str) -> anyhow::Result<Vec<Series>> {
        let answer = self.ask("query", &[("query", expression)]).await?;
        let result = answer["result"].as_array().context("a vector")?;
        let series = result.iter().map(|one| labels(&one["metric"]));
        Ok(series.collect())
    }

    /// The expressions of all rules with their names.
    ///
    /// # Errors
    /// It does not respond.
    pub async fn rules(&self) -> anyhow::Result<Vec<(String, String)>> {
        let answer = self.ask("rules", &[]).await?;
        let groups = answer["groups"].as_array().context("groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rules = rules.flatten();
        Ok(rules
            .map(|rule| (text(&rule["name"]), text(&rule["query"])))
            .collect())
    }

    /// The names of the alerts that fire now.
    ///
    /// # Errors
    /// It does not respond.
    pub async fn firing(&self) -> anyhow::Result<BTreeSet<String>> {
        let alerts = self.query("ALERTS{alertstate=\"firing\"}").await?;
        let names = alerts.into_iter();
        Ok(names
            .filter_map(|mut alert| alert.remove("alertname"))
            .collect())
    }

    async fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Value> {
        let url = format!("{}/api/v1/{what}", self.url);
        let request = self.client.get(url).query(parameters);
        let mut answer: Value = request.send().await?.json().await?;
        ensure!(answer["status"] == "success", "{}", answer["error"]);
        Ok(answer["data"].take())
    }
}

fn labels(metric: &Value) -> Series {
    let labels = metric.as_object().into_iter().flatten();
    labels
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The example of deploy/prometheus with these targets, and without an Alertmanager.
fn configuration(targets: &[(&str, SocketAddr)], seconds: Option<u32>) -> anyhow::Result<String> {
    let deploy = repository().join("deploy/prometheus");
    let mut text = fs::read_to_string(deploy.join("prometheus.yml"))?;
    let mut put = |old: &str, new: &str| {
        ensure!(text.contains(old), "prometheus.yml has no {old}");
        text = text.replace(old, new);
        Ok(())
    };
    put(
        "rules/*.yml",
        &deploy.join("rules/*.yml").display().to_string(),
    )?;
    put("[\"127.0.0.1:9093\"]", "[]")?;
    for (job, address) in targets {
        let example = EXAMPLES.iter().find(|(name, _)| name == job);
        let (_, example) = example.with_context(|| format!("no job {job}"))?;
        put(example, &address.to_string())?;
    }
    if let Some(seconds) = seconds {
        for setting in ["scrape_interval: 15s", "evaluation_interval: 15s"] {
            let name = setting.trim_end_matches("15s");
            put(setting, &format!("{name}{seconds}s"))?;
        }
        put(
            "scrape_timeout: 10s",
            &format!("scrape_timeout: {seconds}s"),
        )?;
    }
    Ok(text)
}
