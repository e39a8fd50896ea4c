//! The settings of `returns-api`: each one a flag and a variable.

use std::time::Duration;

use clap::Args;
use shared::auth::AuthArgs;
use shared::domain::eligibility::PolicyArgs;
use shared::domain::event::TopicArgs;
use shared::runtime::db::DbArgs;
use shared::runtime::program::Settings;

use crate::auth::TokenArgs;
use crate::backlog::BacklogArgs;
use crate::filing::FilingArgs;
use crate::http::HttpArgs;
use crate::notifications::NotificationArgs;
use crate::streams::StreamArgs;
use crate::{auth, http};

/// All settings.
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
    pub notifications: NotificationArgs,
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub topics: TopicArgs,
    #[command(flatten)]
    pub db: DbArgs,
}

impl Config {
    pub(crate) fn streams_max(&self) -> u32 {
        let half = self.http.api_max_connections / 2;
        self.streams.streams_max.unwrap_or(half)
    }
}

impl Settings for Config {
    const NAME: &'static str = "returns-api";
    const ABOUT: &'static str = "HTTP API for order returns, on a transactional outbox";

    fn drain(&self) -> Duration {
        self.http.drain()
    }

    fn trusts_callers(&self) -> bool {
        self.http.trust_sampled_flag
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let longest = self.http.longest_request() + self.http.stop_delay();
        if self.http.drain() < longest {
            problems.push(format!(
                "API_DRAIN_SECS ({}) must be at least {}: API_STOP_DELAY_SECS plus API_BODY_TIMEOUT_SECS plus \
                 API_REQUEST_TIMEOUT_SECS plus one, because accepted requests are finished",
                self.http.api_drain_secs,
                longest.as_secs()
            ));
        }
        problems.extend(http::origin_problems(&self.http.cors_allowed_origins));
        if self.streams_max() >= self.http.api_max_connections {
            problems.push(format!(
                "STREAMS_MAX ({}) must be below API_MAX_CONNECTIONS ({}): each stream holds a connection",
                self.streams_max(),
                self.http.api_max_connections
            ));
        }
        if let Err(problem) = auth::load_keys(&self.auth) {
            problems.push(problem.to_string());
        }
        problems.extend(self.notifications.problem());
        problems.extend(self.topics.problems());
        problems
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use shared::runtime::program::Cli;

    use super::*;

    fn parse(flag: &str, value: &str) -> Result<Config, clap::Error> {
        let flags = [
            "returns-api",
            "--database-url",
            "mysql://localhost/y",
            flag,
            value,
        ];
        Cli::<Config>::try_parse_from(flags).map(|cli| cli.settings)
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
        let problems = cfg.expect("parsed").problems().join("\n");
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
