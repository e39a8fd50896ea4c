//! The one way to be a program: settings, health check, logs, signals, waiting for MySQL, start line, exit code.

mod start;

use std::error::Error;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, CommandFactory, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::start::NotReady;
use self::start::StartArgs;
use super::ops::{self, OpsArgs};
use super::settings::{self, Refused};
use super::tasks::chain;
use super::telemetry::{self, LogArgs};
use super::trace::{self, TraceArgs};
use super::{killpoint, shutdown};

/// The settings of one program.
pub trait Settings: clap::Args {
    /// The name of the binary.
    const NAME: &'static str;
    /// One sentence for `--help`.
    const ABOUT: &'static str;

    /// Everything that is wrong with these settings taken together; empty when they are good.
    fn problems(&self) -> Vec<String>;

    /// How long the program may take to end after a signal.
    fn drain(&self) -> Duration;

    /// Whether a caller's flag decides that its trace is recorded. Not at a public edge.
    fn trusts_callers(&self) -> bool {
        true
    }
}

/// The command line of a program: its own settings, and those that every program has.
#[derive(Debug, Parser)]
#[command(name = S::NAME, about = S::ABOUT, version, max_term_width = 80)]
pub struct Cli<S: Settings> {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    pub settings: S,
    #[command(flatten)]
    ops: OpsArgs,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    trace: TraceArgs,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Command {
    /// Ask the running program at OPS_LISTEN whether it is alive; exit 0 or 1.
    Healthcheck,
}

/// What a program gets when its settings are good.
#[derive(Debug)]
pub struct Start {
    /// Cancelled at the first SIGTERM or SIGINT.
    pub stop: CancellationToken,
    /// Bound to `OPS_LISTEN`.
    pub ops_listener: TcpListener,
    ops_address: SocketAddr,
    wait: Duration,
    settings: String,
}

impl Start {
    /// Writes the start line: version, addresses, and each setting as `NAME=value`, secrets left out. Call it when
    /// the program is ready to work. `api_address` is for the program that has one.
    pub fn announce(&self, api_address: Option<SocketAddr>) {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            api.address = api_address.map(tracing::field::display),
            ops.address = %self.ops_address,
            settings = self.settings,
            "listening"
        );
    }
}

/// Reads the settings, prints every problem with them, and runs the program. Exit code 0: stopped by a signal; 1: it
/// could not start or could not go on; 64: bad settings, before any port or connection was opened.
pub fn main<S, E, F>(run: impl FnOnce(S, Start) -> F) -> ExitCode
where
    S: Settings,
    E: Into<Box<dyn Error + Send + Sync>>,
    F: Future<Output = Result<(), E>>,
{
    let _armed = killpoint::arm();
    let args: Vec<OsString> = std::env::args_os().collect();
    let cli: Cli<S> = match settings::parse(args.clone()) {
        Ok(cli) => cli,
        Err(refused) => return refused.print(),
    };
    if let Some(Command::Healthcheck) = cli.command {
        let alive = ops::healthcheck(cli.ops.ops_listen);
        return ExitCode::from(u8::from(!alive));
    }
    let problems = cli.settings.problems();
    if !problems.is_empty() {
        return Refused::listing(&problems).print();
    }
    let _flush = telemetry::init(&cli.log);
    let _spans = match trace::init(&cli.trace, S::NAME, cli.settings.trusts_callers()) {
        Ok(flush) => flush.within(cli.settings.drain()),
        Err(problem) => return Refused::listing(&[problem]).print(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a thread and an epoll descriptor");
    match runtime.block_on(start(cli, effective::<S>(args), run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&*error), "cannot go on");
            ExitCode::FAILURE
        }
    }
}

async fn start<S, E, F>(
    cli: Cli<S>,
    settings: String,
    run: impl FnOnce(S, Start) -> F,
) -> Result<(), Box<dyn Error + Send + Sync>>
where
    S: Settings,
    E: Into<Box<dyn Error + Send + Sync>>,
    F: Future<Output = Result<(), E>>,
{
    let stop = shutdown::on_signal()?;
    let ops_listener = listen("OPS_LISTEN", cli.ops.ops_listen).await?;
    let start = Start {
        stop,
        ops_address: ops_listener.local_addr()?,
        ops_listener,
        wait: cli.start.wait(),
        settings,
    };
    run(cli.settings, start).await.map_err(Into::into)
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {setting} {address}")]
pub struct ListenError {
    setting: &'static str,
    address: SocketAddr,
    source: std::io::Error,
}

/// Binds the address of a setting.
///
/// # Errors
/// The port is taken, or the address is not of this host.
pub async fn listen(
    setting: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError {
            setting,
            address,
            source,
        })
}

/// Every setting with the value that is in force, as `NAME=value`; secrets as `NAME=[set]`.
fn effective<S: Settings>(args: Vec<OsString>) -> String {
    let command = Cli::<S>::command();
    let Ok(matches) = command.clone().try_get_matches_from(args) else {
        return String::new();
    };
    let shown = command
        .get_arguments()
        .filter_map(|arg| setting(arg, &matches));
    shown.collect::<Vec<_>>().join(" ")
}

fn setting(arg: &Arg, matches: &ArgMatches) -> Option<String> {
    let name = arg.get_env().filter(|_| !arg.is_hide_set())?;
    let name = name.to_string_lossy();
    let values = matches.try_get_raw(arg.get_id().as_str()).ok()??;
    if arg.is_hide_env_values_set() {
        return Some(format!("{name}=[set]"));
    }
    let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
    Some(format!("{name}={}", values.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Args)]
    struct Few {
        #[arg(long, env = "PROGRAM_TEST_ROWS", default_value_t = 7)]
        rows: u8,
        #[arg(long, env = "PROGRAM_TEST_SECRET", hide_env_values = true)]
        secret: Option<String>,
    }

    impl Settings for Few {
        const NAME: &'static str = "few";
        const ABOUT: &'static str = "Has few settings.";

        fn problems(&self) -> Vec<String> {
            Vec::new()
        }

        fn drain(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn shown(line: &str) -> String {
        effective::<Few>(line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn p13_the_start_line_shows_settings_and_no_secret() {
        let text = shown("few --secret s3cret --log-format text");
        assert!(
            text.starts_with("PROGRAM_TEST_ROWS=7 PROGRAM_TEST_SECRET=[set]"),
            "{text}"
        );
        assert!(text.contains("LOG_FORMAT=text"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        assert!(!shown("few").contains("SECRET"));
    }

    #[test]
    fn a_program_has_its_own_name_and_the_settings_of_all() {
        let command = Cli::<Few>::command();
        assert_eq!(command.get_name(), "few");
        let has = |name: &str| {
            command
                .get_arguments()
                .any(|arg| arg.get_env() == Some(name.as_ref()))
        };
        assert!(has("OPS_LISTEN") && has("RUST_LOG") && has("PROGRAM_TEST_ROWS"));
    }
}
