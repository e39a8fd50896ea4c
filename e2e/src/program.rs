//! One of our programs as a process. All its output is searched for secrets (P13).

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
use crate::secrets::{self, Audience, Secrets};

/// Variables of a process.
pub type Env = HashMap<String, String>;

/// A running program. Dropping it kills the process, and panics if it has written a secret.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    child: tokio::process::Child,
    pid: Pid,
    start_line: Value,
    output: Output,
    /// Created once: setting up TLS takes longer than the times that are measured between two requests.
    client: reqwest::Client,
}

const START_DEADLINE: Duration = Duration::from_secs(30);

/// The folder of the built binaries, which is that of the running test or demo.
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
    /// The program ended, or did not write that line in time. The message has its last lines.
    pub async fn start(name: &'static str, env: &Env) -> anyhow::Result<Self> {
        Self::start_with_args(name, &[], env).await
    }

    /// As [`Program::start`], with arguments.
    ///
    /// # Errors
    /// As [`Program::start`].
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
        secrets::register(Secrets::of(env));
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
            // A program that was frozen closes its idle connections when it wakes: a request must not meet one of them.
            client: reqwest::Client::builder()
                .pool_max_idle_per_host(0)
                .build()?,
        };
        let line = match tokio::time::timeout(START_DEADLINE, start_line).await {
            Ok(line) => line.context("it ended"),
            Err(_) => Err(anyhow!("no line \"listening\" in time")),
        };
        program.start_line =
            line.with_context(|| format!("{name} did not start: {}", program.last_lines()))?;
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

    /// The address of the operator's endpoints.
    ///
    /// # Errors
    /// The start line has no such address.
    pub fn ops_address(&self) -> anyhow::Result<SocketAddr> {
        self.address("ops.address")
    }

    /// The address of the public API.
    ///
    /// # Errors
    /// The start line has no such address.
    pub fn api_address(&self) -> anyhow::Result<SocketAddr> {
        self.address("api.address")
    }

    /// The value of a metric: the sum over all labels, or that of one series if `name` includes its labels.
    ///
    /// # Errors
    /// It does not respond, or has no such integer.
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let value = self.metric_if_any(name).await?;
        value.with_context(|| format!("{}: no metric {name}", self.name))
    }

    /// As [`Program::metric`]; `None` if there is no such series.
    ///
    /// # Errors
    /// It does not respond, or the value is not an integer.
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
    /// It does not respond.
    pub async fn ops_page(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{}{path}", self.ops_address()?);
        let page = self.client.get(url).send().await?.text().await?;
        secrets::assert_none_in(&format!("{path} of {}", self.name), &page, Audience::Anyone);
        Ok(page)
    }

    /// The address of the provider's API.
    ///
    /// # Errors
    /// The start line has no such address.
    pub fn gateway_address(&self) -> anyhow::Result<SocketAddr> {
        self.address("gateway.address")
    }

    fn address(&self, field: &str) -> anyhow::Result<SocketAddr> {
        let text = self.start_line[field]
            .as_str()
            .with_context(|| format!("{}: no {field} in the start line", self.name))?;
        Ok(text.parse()?)
    }

    /// The last lines of its output.
    pub fn last_lines(&self) -> String {
        self.output.last_lines()
    }

    /// How many lines of its output were searched.
    pub fn lines_written(&self) -> usize {
        self.output.count()
    }

    /// The lines of its output after the first `count`.
    pub fn lines_after(&self, count: usize) -> Vec<String> {
        self.output.lines_after(count)
    }

    /// Whether the process has ended.
    ///
    /// # Errors
    /// The state of the process cannot be read.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// It still runs at the deadline.
    pub async fn ended(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        match tokio::time::timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} still runs after {deadline:?}", self.name),
        }
    }

    /// Waits until an armed kill point ends it.
    ///
    /// # Errors
    /// It still runs at the deadline, or ended in another way.
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
    /// It has ended already.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        kill_process(self.pid, Signal::KILL)?;
        self.child.wait().await?;
        Ok(())
    }

    /// SIGSTOP: the process stands still until [`Program::thaw`].
    ///
    /// # Errors
    /// It has ended already.
    pub fn freeze(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid, Signal::STOP)?)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It has ended already.
    pub fn thaw(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid, Signal::CONT)?)
    }

    /// SIGTERM; it must end with exit code 0.
    ///
    /// # Errors
    /// Another code, or it still runs at the deadline. The message has its last lines.
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
        // It may have ended already.
        let _ = self.child.start_kill();
        if let Some(secret) = self.output.finish() {
            let leak = format!("P13: {} has written {secret}", self.name);
            if std::thread::panicking() {
                // A second panic would abort the process before it prints the first.
                eprintln!("{leak}");
            } else {
                panic!("{leak}");
            }
        }
    }
}

/// The result of a command.
#[derive(Debug)]
pub struct CommandResult {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end, also if it fails.
///
/// # Errors
/// It cannot be started.
pub async fn run_to_end(name: &str, args: &[&str], env: &Env) -> anyhow::Result<CommandResult> {
    let output = Command::new(bin_dir()?.join(name))
        .args(args)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ended = CommandResult {
        status: output.status,
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    // After the run, because it may have created its keys.
    secrets::register(Secrets::of(env));
    // Without the arguments, which may include a secret.
    let what = format!("the output of {name}");
    secrets::assert_none_in(&what, &ended.stderr, Audience::Anyone);
    if prints_a_token(args) && ended.status.success() {
        secrets::register(Secrets::one("a token", ended.stdout.trim()));
    } else {
        secrets::assert_none_in(&what, &ended.stdout, Audience::Owner);
    }
    Ok(ended)
}

/// The only commands that print a secret.
fn prints_a_token(args: &[&str]) -> bool {
    matches!(args, ["token", "mint" | "attenuate", ..])
}

/// Runs a program to its end; returns its output.
///
/// # Errors
/// It failed. The message has its stderr.
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
