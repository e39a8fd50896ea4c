//! The settings of `returns-api`: each one a flag and a variable.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use shared::auth::AuthArgs;
use shared::db::DbArgs;
use shared::eligibility::PolicyArgs;
use shared::event::TopicArgs;
use shared::ops::OpsArgs;
use shared::telemetry::LogArgs;

use crate::auth;

/// HTTP API for order returns, on a transactional outbox.
#[derive(Debug, Clone, Parser)]
#[command(name = "returns-api", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub config: Config,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Asks the running api at OPS_LISTEN whether it is alive; exit 0 or 1.
    Healthcheck,
}

/// Everything that can be set.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    pub http: HttpArgs,
    #[command(flatten)]
    pub auth: AuthArgs,
    #[command(flatten)]
    pub tokens: TokenArgs,
    #[command(flatten)]
    pub filing: FilingArgs,
    #[command(flatten)]
    pub backlog: BacklogArgs,
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub topics: TopicArgs,
    #[command(flatten)]
    pub db: DbArgs,
    #[command(flatten)]
    pub ops: OpsArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// How tokens that were taken back are kept out.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// Seconds for which the list of revoked tokens may be relied on while MySQL does not tell it anew (it is read every
    /// second). Afterwards callers get 503. Too low refuses everybody in a short outage, too high lets a revoked token
    /// in for as long.
    #[arg(long, env = "REVOCATIONS_MAX_AGE_SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub revocations_max_age_secs: u64,
}

/// The public listener.
#[derive(Debug, Clone, Args)]
pub struct HttpArgs {
    /// Address of the public API. Port 0 takes a free one and logs it.
    #[arg(long, env = "API_LISTEN", default_value = "127.0.0.1:8080")]
    pub api_listen: SocketAddr,

    /// Connections open at once; further ones wait in the listen queue. Too low stalls clients, too high costs
    /// memory under attack (about 20 KiB each).
    #[arg(long, env = "API_MAX_CONNECTIONS", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub api_max_connections: u32,

    /// Seconds a client has to send a request's headers; also how long an idle connection is kept. Behind a proxy
    /// set it above the proxy's own idle time, or requests race with the close.
    #[arg(long, env = "API_HEADER_TIMEOUT_SECS", default_value_t = 75, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub api_header_timeout_secs: u64,

    /// Seconds until an unanswered request gets 503. Must leave room for a lock wait of 5 s.
    #[arg(long, env = "API_REQUEST_TIMEOUT_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub api_request_timeout_secs: u64,

    /// Seconds after SIGTERM in which accepted requests are answered. Must be below the platform's kill delay.
    #[arg(long, env = "API_DRAIN_SECS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub api_drain_secs: u64,
}

/// Group commit.
#[derive(Debug, Clone, Args)]
pub struct FilingArgs {
    /// Most filings in one transaction. 1 turns group commit off; more than 64 makes each wait longer without
    /// gaining throughput.
    #[arg(long, env = "FILING_BATCH_MAX", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub filing_batch_max: u16,

    /// Group transactions in flight, each on a connection of its own beside the pool (as are eight more for filings
    /// that wait for a lock). Two keep MySQL busy while one answers; more make the groups smaller.
    #[arg(long, env = "FILING_WRITERS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub filing_writers: u16,

    /// Filings that may wait for a transaction; a further one gets 503 with Retry-After. Too low refuses bursts,
    /// too high lets clients wait for an answer they no longer want.
    #[arg(long, env = "FILING_QUEUE", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub filing_queue: u32,
}

/// How much may wait in the outbox while Kafka or the relays are away.
#[derive(Debug, Clone, Args)]
pub struct BacklogArgs {
    /// Rows in the outbox above which new filings get 503 with Retry-After; they are accepted again at 80 % of it.
    /// The default takes one slow relay (11,000 rows/s) a quarter of an hour, and about 3 GiB of disk with this
    /// system's small events. Too low refuses customers in an outage that the disk could have bridged; too high
    /// fills the disk, and makes the outage's end long and measuring slow (2 s per million rows). A limit passed is
    /// noticed up to two minutes and a measurement late: leave room for that.
    #[arg(long, env = "BACKLOG_MAX_ROWS", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub backlog_max_rows: u64,

    /// MiB of payload in the outbox above which new filings get 503, as for BACKLOG_MAX_ROWS. On disk a row takes
    /// about 300 bytes more than its payload. Too low refuses filings for a few large events of others; too high
    /// fills the disk before the limit by rows is met.
    #[arg(long, env = "BACKLOG_MAX_MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub backlog_max_mib: u64,

    /// Seconds after which the oldest event in the outbox raises an alarm (a metric and one log line). Never refuses
    /// a filing. Too low alarms at every restart of a broker, too high tells late that nothing is published.
    #[arg(long, env = "BACKLOG_ALARM_AGE_SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub backlog_alarm_age_secs: u64,
}

impl HttpArgs {
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.api_request_timeout_secs)
    }

    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.api_drain_secs)
    }
}

impl Config {
    /// Everything that is wrong with these settings taken together; empty when they are good.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.http.api_drain_secs < self.http.api_request_timeout_secs {
            problems.push(format!(
                "API_DRAIN_SECS ({}) must be at least API_REQUEST_TIMEOUT_SECS ({}): accepted requests are answered",
                self.http.api_drain_secs, self.http.api_request_timeout_secs
            ));
        }
        if let Err(problem) = auth::check(&self.auth) {
            problems.push(problem.to_string());
        }
        for (name, value) in [
            ("TOPIC_RETURNS", &self.topics.topic_returns),
            ("TOPIC_STATUS", &self.topics.topic_status),
        ] {
            if value.is_empty() {
                problems.push(format!("{name} is empty"));
            }
        }
        problems
    }
}
