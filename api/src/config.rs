//! The settings of `returns-api`: each one a flag and a variable.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use shared::auth::AuthArgs;
use shared::domain::eligibility::PolicyArgs;
use shared::domain::event::TopicArgs;
use shared::runtime::db::DbArgs;
use shared::runtime::ops::OpsArgs;
use shared::runtime::telemetry::LogArgs;

use crate::client::Proxies;
use crate::{auth, cors};

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
    pub streams: StreamArgs,
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

    /// Connections open at once. For a further one, the connection is closed that has waited longest for a request;
    /// while each has a request under way, it waits. Too low closes connections that clients would have used again, too
    /// high costs memory under attack (about 10 KiB each, 20 KiB with half a head) and file descriptors.
    #[arg(long, env = "API_MAX_CONNECTIONS", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub api_max_connections: u32,

    /// Seconds a client has to send a request's headers; also how long an idle connection is kept. Behind a proxy
    /// set it above the proxy's own idle time, or requests race with the close.
    #[arg(long, env = "API_HEADER_TIMEOUT_SECS", default_value_t = 75, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub api_header_timeout_secs: u64,

    /// Seconds a client may take no byte of an answer before its connection is closed. Too low drops clients on bad
    /// networks, too high lets those that do not read hold memory for as long.
    #[arg(long, env = "API_WRITE_TIMEOUT_SECS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub api_write_timeout_secs: u64,

    /// Seconds a client has to send a body, from when it is asked for; then it gets 408. Comes before
    /// API_REQUEST_TIMEOUT_SECS. Too low refuses clients on slow networks (bodies have at most 16 KiB), too high lets
    /// slow ones hold a connection that is not taken from them.
    #[arg(long, env = "API_BODY_TIMEOUT_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub api_body_timeout_secs: u64,

    /// Seconds for which a filing may wait for its transaction, and a reading for MySQL, before it gets 503; any other
    /// request gets it after this and API_BODY_TIMEOUT_SECS and one more. Must leave room for a lock wait of 5 s.
    #[arg(long, env = "API_REQUEST_TIMEOUT_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub api_request_timeout_secs: u64,

    /// Seconds after SIGTERM in which accepted requests are answered. Must be two less than the platform's kill delay.
    #[arg(long, env = "API_DRAIN_SECS", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub api_drain_secs: u64,

    /// Seconds after SIGTERM in which connections and requests are still taken while `/readyz` says 503 already: as long as the
    /// balancer in front needs to notice. Part of API_DRAIN_SECS. Too low has its clients' connections refused.
    #[arg(long, env = "API_STOP_DELAY_SECS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=120))]
    pub api_stop_delay_secs: u64,

    /// Requests a second of one client address (of IPv6: one /64) before 429; twice as many may come at once. 0: no
    /// limit. Counted before anything else is done, so it also bounds guesses of tokens. Too low refuses people who share
    /// an address; behind a proxy that is not in TRUSTED_PROXIES everybody does.
    #[arg(long, env = "RATE_PER_ADDRESS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rate_per_address: u32,

    /// Requests a second of one user, whatever the token and the address, before 429; twice as many may come at once. 0:
    /// no limit. Too low refuses programs that work through a list, too high lets one of them slow down everybody.
    #[arg(long, env = "RATE_PER_CALLER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rate_per_caller: u32,

    /// Networks or addresses of proxies whose X-Forwarded-For is believed, such as `10.0.0.0/8,fd00::1`. Unset or empty:
    /// nobody's, the peer is the client. A network too many lets its members choose the address they are counted by; one too few makes all
    /// clients behind that proxy one.
    #[arg(
        long,
        env = "TRUSTED_PROXIES",
        default_value = "",
        hide_default_value = true
    )]
    pub trusted_proxies: Proxies,

    /// Origins whose pages may use the API in browsers, such as `https://shop.example`, separated by commas. Unset or
    /// empty: none.
    /// One too many lets its pages read what a token shows them; it never lends them a token.
    #[arg(long, env = "CORS_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub cors_allowed_origins: Vec<String>,
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

/// Streams of events (`GET /returns/{id}/stream`).
#[derive(Debug, Clone, Args)]
pub struct StreamArgs {
    /// Streams open at once, of all callers; a further one gets 429, and 0 refuses them all. Unset: half of
    /// API_MAX_CONNECTIONS. Each holds a connection, so it must be below that, or streams keep out everybody else. Too low
    /// sends clients back to polling, too high costs memory and makes looking for changes slow.
    #[arg(long, env = "STREAMS_MAX", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub streams_max: Option<u32>,

    /// Streams that one caller may have open. Too low refuses somebody with many tabs, too high lets one caller use
    /// up STREAMS_MAX.
    #[arg(long, env = "STREAMS_PER_CALLER", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub streams_per_caller: u16,
}

impl HttpArgs {
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.api_request_timeout_secs)
    }

    pub fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.api_body_timeout_secs)
    }

    /// A handler answers by its own deadlines and knows what to say; this one is for what hangs.
    pub fn longest_request(&self) -> Duration {
        self.body_timeout() + self.request_timeout() + Duration::from_secs(1)
    }

    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.api_drain_secs)
    }

    pub fn stop_delay(&self) -> Duration {
        Duration::from_secs(self.api_stop_delay_secs)
    }
}

impl Config {
    pub(crate) fn streams_max(&self) -> u32 {
        let half = self.http.api_max_connections / 2;
        self.streams.streams_max.unwrap_or(half)
    }

    /// Everything that is wrong with these settings taken together; empty when they are good.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let longest = self.http.longest_request() + self.http.stop_delay();
        if self.http.drain() < longest {
            problems.push(format!(
                "API_DRAIN_SECS ({}) must be at least {}, API_STOP_DELAY_SECS, API_BODY_TIMEOUT_SECS and \
                 API_REQUEST_TIMEOUT_SECS and one more: accepted requests are answered",
                self.http.api_drain_secs,
                longest.as_secs()
            ));
        }
        problems.extend(cors::given(&self.http.cors_allowed_origins).filter_map(cors::problem));
        if self.streams_max() >= self.http.api_max_connections {
            problems.push(format!(
                "STREAMS_MAX ({}) must be below API_MAX_CONNECTIONS ({}): each stream holds a connection",
                self.streams_max(),
                self.http.api_max_connections
            ));
        }
        if let Err(problem) = auth::check(&self.auth) {
            problems.push(problem.to_string());
        }
        problems.extend(self.topics.problems());
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flag: &str, value: &str) -> Result<Config, clap::Error> {
        let flags = ["returns-api", "--database-url", "mysql://x/y", flag, value];
        Cli::try_parse_from(flags).map(|cli| cli.config)
    }

    #[test]
    fn limits_of_clients_have_bounds() {
        for (flag, good, bad) in [
            ("--api-max-connections", ["1", "100000"], ["0", "100001"]),
            ("--api-write-timeout-secs", ["1", "3600"], ["0", "3601"]),
            ("--api-body-timeout-secs", ["1", "300"], ["0", "301"]),
            ("--rate-per-address", ["0", "1000000"], ["-1", "1000001"]),
            ("--rate-per-caller", ["0", "1000000"], ["-1", "1000001"]),
            (
                "--trusted-proxies",
                ["10.0.0.0/8", "10.0.0.1/32,fd00::/8"],
                ["10.0.0.0/33", "proxy"],
            ),
        ] {
            for value in good {
                assert!(parse(flag, value).is_ok(), "{flag} {value}");
            }
            for value in bad {
                assert!(parse(flag, value).is_err(), "{flag} {value}");
            }
        }
    }

    #[test]
    fn every_wrong_origin_is_named() {
        let cfg = parse(
            "--cors-allowed-origins",
            "https://a.example,*,https://b.example/",
        );
        let problems = cfg.expect("read").problems().join("\n");
        for (origin, wrong) in [
            ("https://a.example", false),
            ("*", true),
            ("https://b.example/", true),
        ] {
            assert_eq!(
                problems.contains(&format!("{origin} is no origin")),
                wrong,
                "{problems}"
            );
        }
    }
}
