//! The settings of the public listener.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::client::Proxies;
use super::public_url::PublicUrl;

/// The public listener.
#[derive(Debug, Clone, Args)]
pub struct HttpArgs {
    /// Address of the public API. Port 0 takes a free port, which the start line shows.
    #[arg(long, env = "API_LISTEN", default_value = "127.0.0.1:8080")]
    pub api_listen: SocketAddr,

    /// Connections open at once. For another one, the connection that has been idle longest is closed; if each has a
    /// request in progress, the new one waits. Too low closes connections that clients would have used again; too high
    /// costs memory under attack (about 10 KiB each, 20 KiB with half a head) and file descriptors.
    #[arg(long, env = "API_MAX_CONNECTIONS", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub api_max_connections: u32,

    /// Seconds a client has to send a request's headers; also the idle timeout of a connection. Behind a proxy, set it
    /// above the proxy's own idle timeout, or requests race with the close.
    #[arg(long, env = "API_HEADER_TIMEOUT_SECS", default_value_t = 75, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub api_header_timeout_secs: u64,

    /// Seconds for which a client may read no byte of a response before its connection is closed. The client of an export
    /// must also read 64 KiB a second on average; it may pause for this long in all. Too low drops clients on bad
    /// networks; too high lets clients that do not read hold memory for as long.
    #[arg(long, env = "API_WRITE_TIMEOUT_SECS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub api_write_timeout_secs: u64,

    /// Seconds a client has to send a body, once the api reads it; then it gets 408. API_REQUEST_TIMEOUT_SECS begins
    /// afterwards. Too low refuses clients on slow networks (bodies have at most 16 KiB); too high lets slow clients
    /// hold a connection, which is not closed meanwhile.
    #[arg(long, env = "API_BODY_TIMEOUT_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub api_body_timeout_secs: u64,

    /// Seconds for which a filing may wait for its transaction, and a read for MySQL, before it gets 503. Any other
    /// request gets 503 after this plus API_BODY_TIMEOUT_SECS plus one. Must leave room for a lock wait of 5 s.
    #[arg(long, env = "API_REQUEST_TIMEOUT_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub api_request_timeout_secs: u64,

    /// Seconds after SIGTERM in which accepted requests are finished. Must be two less than the platform's kill delay.
    #[arg(long, env = "API_DRAIN_SECS", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub api_drain_secs: u64,

    /// Seconds after SIGTERM in which the api still accepts connections and requests, while `/readyz` already returns
    /// 503: as long as the load balancer needs to notice. Part of API_DRAIN_SECS. Too low, and the load balancer's
    /// connections are refused.
    #[arg(long, env = "API_STOP_DELAY_SECS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=120))]
    pub api_stop_delay_secs: u64,

    /// Requests per second from one client address (IPv6: one /64) before 429; a burst may have twice as many. 0: no
    /// limit. Counted before anything else, so it also limits guesses of tokens. Too low refuses people who share an
    /// address; behind a proxy that is not in TRUSTED_PROXIES, all clients share one.
    #[arg(long, env = "RATE_PER_ADDRESS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rate_per_address: u32,

    /// Requests per second from one user, with any token and from any address, before 429; a burst may have twice as
    /// many. 0: no limit. Too low refuses programs that process a list; too high lets one of them slow down the others.
    #[arg(long, env = "RATE_PER_CALLER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rate_per_caller: u32,

    /// Networks or addresses of proxies whose X-Forwarded-For, X-Request-Id and traceparent are trusted, such as
    /// `10.0.0.0/8,fd00::1`. Unset or empty: none, the peer is the client, and the api names each request itself. If a
    /// network is listed wrongly, its members choose the address of their own rate limit; if a proxy is missing, all
    /// clients behind it count as one.
    #[arg(
        long,
        env = "TRUSTED_PROXIES",
        default_value = "",
        hide_default_value = true
    )]
    pub trusted_proxies: Proxies,

    /// The flag of a client behind TRUSTED_PROXIES decides whether its trace is recorded. Off: this service decides at random, by
    /// OTEL_TRACES_SAMPLER, because a client could otherwise have all its requests recorded, or none.
    #[arg(long, env = "TRUST_SAMPLED_FLAG", default_value_t = false, action = clap::ArgAction::Set)]
    pub trust_sampled_flag: bool,

    /// The address at which clients reach this API, such as `https://shop.example/returns-api`, if a proxy adds a prefix
    /// to its paths: `Location` and the `type` of an error begin with it. Unset or empty: they begin with the API's own
    /// paths, which are wrong behind a prefix.
    #[arg(
        long,
        env = "PUBLIC_BASE_URL",
        default_value = "",
        hide_default_value = true
    )]
    pub public_base_url: PublicUrl,

    /// Origins whose pages may use the API in browsers, such as `https://shop.example`, separated by commas. Unset or
    /// empty: none. If an origin is listed wrongly, its pages may read responses to their own tokens; it never gives them
    /// a token.
    #[arg(long, env = "CORS_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub cors_allowed_origins: Vec<String>,
}

impl HttpArgs {
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.api_request_timeout_secs)
    }

    pub fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.api_body_timeout_secs)
    }

    pub fn write_timeout(&self) -> Duration {
        Duration::from_secs(self.api_write_timeout_secs)
    }

    /// The deadline of a whole request. Handlers have shorter deadlines with better errors; this one is the last resort.
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
