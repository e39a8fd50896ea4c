//! One of our programs as a process: started, watched, killed. All that it says is searched for secrets (P13).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Command;

use crate::output::Output;
use crate::secrets::{self, Reader, Secrets};

/// Variables of a process.
pub type Env = HashMap<String, String>;

/// A running program. Dropping it kills it, and panics if it has written a secret.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    child: tokio::process::Child,
    pid: Pid,
    start_line: Value,
    output: Output,
    /// Made once: setting TLS up takes longer than what is measured between two questions.
    client: reqwest::Client,
}

const START_DEADLINE: Duration = Duration::from_secs(30);

/// The folder of the built binaries: that of the running test or demo.
///
/// # Errors
/// The running program's path cannot be read.
pub fn bin_dir() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut dir = own.parent().context("a binary is in a folder")?.to_owned();
    if dir.file_name() == Some(OsStr::new("deps")) {
        dir.pop();
    }
    Ok(dir)
}

impl Program {
    /// Starts a program and waits for its line "listening".
    ///
    /// # Errors
    /// It ended before, or said nothing in time; with its last lines.
    pub async fn start(name: &'static str, env: &Env) -> anyhow::Result<Self> {
        Self::start_with_args(name, &[], env).await
    }

    /// The same, with arguments.
    ///
    /// # Errors
    /// As above.
    pub async fn start_with_args(
        name: &'static str,
        args: &[String],
        env: &Env,
    ) -> anyhow::Result<Self> {
        Self::launch(name, args, env, None).await
    }

    /// The same without arguments; everything that the program writes is also kept in the file `log`.
    ///
    /// # Errors
    /// As above, or the file cannot be created.
    pub async fn start_logged(name: &'static str, env: &Env, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        Self::launch(name, &[], env, Some(file)).await
    }

    async fn launch(
        name: &'static str,
        args: &[String],
        env: &Env,
        log: Option<File>,
    ) -> anyhow::Result<Self> {
        let path = bin_dir()?.join(name);
        secrets::know(Secrets::of(env));
        let (reader, writer) = std::io::pipe()?;
        let child = Command::new(&path)
            .args(args)
            .env_clear()
            .envs(env)
            .env("LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} is not built: use `make`", path.display()))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let (output, start_line) = Output::read(reader, log);
        let mut program = Self {
            name,
            child,
            pid: pid.context("it ended at once")?,
            start_line: Value::Null,
            output,
            client: reqwest::Client::new(),
        };
        let said = match tokio::time::timeout(START_DEADLINE, start_line).await {
            Ok(said) => said.context("it ended"),
            Err(_) => Err(anyhow!("no line \"listening\" in time")),
        };
        program.start_line =
            said.with_context(|| format!("{name} did not start: {}", program.last_lines()))?;
        Ok(program)
    }

    /// The name of its binary.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Where the operator's endpoints are.
    ///
    /// # Errors
    /// The start line does not say.
    pub fn ops_address(&self) -> anyhow::Result<SocketAddr> {
        self.address("ops.address")
    }

    /// Where the public API is.
    ///
    /// # Errors
    /// The start line does not say.
    pub fn api_address(&self) -> anyhow::Result<SocketAddr> {
        self.address("api.address")
    }

    /// What its `/metrics` says under a name, summed over all labels, or under a name with its labels.
    ///
    /// # Errors
    /// It does not answer, or has no such whole number.
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let value = self.metric_if_any(name).await?;
        value.with_context(|| format!("{}: no metric {name}", self.name))
    }

    /// The same; `None` before a series with labels begins.
    ///
    /// # Errors
    /// It does not answer, or the number is not whole.
    pub async fn metric_if_any(&self, name: &str) -> anyhow::Result<Option<u64>> {
        let metrics = self.ops_page("/metrics").await?;
        let values = metrics
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with([' ', '{']))
            .filter_map(|rest| rest.rsplit(' ').next());
        let mut sum = None;
        for value in values {
            sum = Some(sum.unwrap_or(0) + value.parse::<u64>()?);
        }
        Ok(sum)
    }

    /// An operator's page: `/metrics`, `/readyz?verbose`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn ops_page(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{}{path}", self.ops_address()?);
        let page = self.client.get(url).send().await?.text().await?;
        secrets::assert_none_in(&format!("{path} of {}", self.name), &page, Reader::Anyone);
        Ok(page)
    }

    /// Where the provider's API is.
    ///
    /// # Errors
    /// The start line does not say.
    pub fn gateway_address(&self) -> anyhow::Result<SocketAddr> {
        self.address("gateway.address")
    }

    fn address(&self, field: &str) -> anyhow::Result<SocketAddr> {
        let text = self.start_line[field]
            .as_str()
            .with_context(|| format!("{}: no {field} in the start line", self.name))?;
        Ok(text.parse()?)
    }

    /// The last lines that it wrote.
    pub fn last_lines(&self) -> String {
        self.output.last_lines()
    }

    /// How many lines it has written and were searched.
    pub fn lines_written(&self) -> usize {
        self.output.count()
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// The process cannot be asked.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its own end, as when a kill point ends it.
    ///
    /// # Errors
    /// It goes on beyond `deadline`.
    pub async fn ended(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        match tokio::time::timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} still runs after {deadline:?}", self.name),
        }
    }

    /// Waits until an armed kill point ends it.
    ///
    /// # Errors
    /// It goes on beyond `deadline`, or ended in another way.
    pub async fn killed_itself(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let status = self.ended(deadline).await?;
        ensure!(
            status.signal() == Some(Signal::KILL.as_raw()),
            "{} ended with {status}: {}",
            self.name,
            self.last_lines()
        );
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It had ended before.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        kill_process(self.pid, Signal::KILL)?;
        self.child.wait().await?;
        Ok(())
    }

    /// SIGSTOP: it does nothing until it is thawed.
    ///
    /// # Errors
    /// It had ended before.
    pub fn freeze(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid, Signal::STOP)?)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It had ended before.
    pub fn thaw(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid, Signal::CONT)?)
    }

    /// SIGTERM; it must end with exit code 0.
    ///
    /// # Errors
    /// Another code, or not within `deadline`; with its last lines.
    pub async fn stop(mut self, deadline: Duration) -> anyhow::Result<()> {
        kill_process(self.pid, Signal::TERM)?;
        let status = self.ended(deadline).await?;
        ensure!(
            status.success(),
            "{} ended with {status}: {}",
            self.name,
            self.last_lines()
        );
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.start_kill();
        if let Some(secret) = self.output.finish() {
            let leak = format!("P13: {} has written {secret}", self.name);
            if std::thread::panicking() {
                // A second panic would end the process before anything is told.
                eprintln!("{leak}");
            } else {
                panic!("{leak}");
            }
        }
    }
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end, however that is.
///
/// # Errors
/// It cannot be started.
pub async fn run_to_end(name: &str, args: &[&str], env: &Env) -> anyhow::Result<Ended> {
    let output = Command::new(bin_dir()?.join(name))
        .args(args)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ended = Ended {
        status: output.status,
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    // Afterwards: it may have made its keys.
    secrets::know(Secrets::of(env));
    // Without its arguments: a secret may be among them.
    let what = format!("what {name} has printed");
    secrets::assert_none_in(&what, &ended.stderr, Reader::Anyone);
    if prints_a_token(args) && ended.status.success() {
        secrets::know(Secrets::one("a token", ended.stdout.trim()));
    } else {
        secrets::assert_none_in(&what, &ended.stdout, Reader::Owner);
    }
    Ok(ended)
}

/// The only commands whose output is a secret.
fn prints_a_token(args: &[&str]) -> bool {
    matches!(args, ["token", "mint" | "attenuate", ..])
}

/// Runs a program to its end; answers what it printed.
///
/// # Errors
/// It failed; with what it wrote to stderr.
pub async fn run(name: &str, args: &[&str], env: &Env) -> anyhow::Result<String> {
    let ended = run_to_end(name, args, env).await?;
    ensure!(
        ended.status.success(),
        "{name} {args:?} ended with {}: {}",
        ended.status,
        ended.stderr
    );
    Ok(ended.stdout)
}
