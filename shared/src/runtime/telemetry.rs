//! Logs: JSON for machines, text for people, on standard error.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How this program logs.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// Which records are written, in `tracing` directives (`info`, `info,relay=debug`).
    #[arg(long, env = "RUST_LOG", default_value = "info", value_parser = parse_filter)]
    pub rust_log: String,

    /// `json` for machines, `text` for people.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Installs the subscriber of this process; call once, from `main`.
pub fn init(args: &LogArgs) {
    let filter = EnvFilter::new(&args.rust_log);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        // Colors are for terminals: in a file they are noise.
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}
