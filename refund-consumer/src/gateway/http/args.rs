//! The settings of a provider behind JSON over HTTP.

use std::num::NonZeroU32;

use clap::{ArgAction, Args, value_parser};
use reqwest::Url;
use secrecy::SecretString;

use crate::gateway::GatewayName;

/// A provider that speaks docs/GATEWAY.md.
#[derive(Debug, Clone, Args)]
pub struct HttpArgs {
    /// Name of the account at the provider that GATEWAY_URL and GATEWAY_TOKEN lead to, stored with each attempt. Another
    /// account (another contract, sandbox or production) needs another name: attempts of other names are left alone,
    /// because only their account knows whether they were paid. An upgrade from a version without this setting keeps
    /// `http` while attempts from before it are open. 1 to 32 of a-z 0-9 . _ - that begin with a letter.
    #[arg(long, env = "GATEWAY_NAME", value_parser = GatewayName::parse)]
    pub gateway_name: Option<GatewayName>,

    /// Base URL of the provider's API: https, or http to this machine.
    #[arg(long, env = "GATEWAY_URL", hide_env_values = true, value_parser = parse_gateway_url)]
    pub gateway_url: Option<Url>,

    /// Bearer token for every call.
    #[arg(long, env = "GATEWAY_TOKEN", hide_env_values = true)]
    pub gateway_token: Option<SecretString>,

    /// Whether the provider honors Idempotency-Key for IDEMPOTENCY_WINDOW_SECS. If not, a call with an unknown outcome is
    /// only looked up, never repeated. A wrong `true` pays twice.
    #[arg(long, env = "GATEWAY_IDEMPOTENCY_KEYS", default_value_t = false, action = ArgAction::Set)]
    pub gateway_idempotency_keys: bool,

    /// Milliseconds for one call, from connecting to the last byte. Too low: slow calls end unknown. Too high: calls wait
    /// for a provider that hangs. A call begins in the first half of CALL_DEADLINE_MS, so a value up to half of
    /// CALL_DEADLINE_MS is never cut short.
    #[arg(long, env = "GATEWAY_CALL_TIMEOUT_MS", default_value_t = 10_000, value_parser = value_parser!(u64).range(10..=300_000))]
    pub gateway_call_timeout_ms: u64,

    /// Milliseconds for connecting, TLS included; part of GATEWAY_CALL_TIMEOUT_MS.
    #[arg(long, env = "GATEWAY_CONNECT_TIMEOUT_MS", default_value_t = 2_000, value_parser = value_parser!(u64).range(10..=60_000))]
    pub gateway_connect_timeout_ms: u64,

    /// Most calls per second of this process. Unset: only the provider's own limit applies; after its 429 all calls wait as
    /// long as it asks.
    #[arg(long, env = "GATEWAY_RATE_PER_SEC")]
    pub gateway_rate_per_sec: Option<NonZeroU32>,

    /// This many consecutive calls without a response, or with 401, 403 or 5xx, open the circuit; so do this many that
    /// are refused or not understood, if they are about at least three refunds. Then one call at a time probes. Too low:
    /// short disturbances stop all calls. Too high: many calls end unknown.
    #[arg(long, env = "GATEWAY_BREAKER_FAILURES", default_value_t = 20, value_parser = value_parser!(u32).range(1..=10_000))]
    pub gateway_breaker_failures: u32,

    /// Milliseconds between two probes while the circuit is open.
    #[arg(long, env = "GATEWAY_BREAKER_PAUSE_MS", default_value_t = 5_000, value_parser = value_parser!(u64).range(10..=600_000))]
    pub gateway_breaker_pause_ms: u64,

    /// Milliseconds for which an unused connection to the provider is kept for the next call; 0: each call opens a new one. Keep
    /// it well below the time after which the provider, or a proxy before it, closes idle connections (often 5 s, seldom
    /// 2 s). Too high: a call is sent into a connection that is just being closed, and ends unknown. Too low: more TLS
    /// handshakes.
    #[arg(long, env = "GATEWAY_POOL_IDLE_MS", default_value_t = 1_000, value_parser = value_parser!(u64).range(0..=60_000))]
    pub gateway_pool_idle_ms: u64,
}

impl HttpArgs {
    /// Everything that is wrong with these settings; empty when they are good.
    pub(crate) fn problems(&self, call_deadline_ms: u64) -> Vec<String> {
        let mut problems = Vec::new();
        match &self.gateway_name {
            None => problems.push(
                "GATEWAY_NAME is required with REFUND_GATEWAY=http: it names the account at the provider, and attempts \
                 of one account are never sent to another"
                    .to_owned(),
            ),
            Some(name) if name.as_str() == GatewayName::SIMULATED => problems.push(format!(
                "GATEWAY_NAME must not be {name}: attempts of that name belong to the simulated gateway"
            )),
            Some(_) => {}
        }
        if self.gateway_url.is_none() {
            problems.push("GATEWAY_URL is required with REFUND_GATEWAY=http".to_owned());
        }
        if self.gateway_call_timeout_ms > call_deadline_ms {
            problems.push(format!(
                "GATEWAY_CALL_TIMEOUT_MS ({}) must be at most CALL_DEADLINE_MS ({call_deadline_ms})",
                self.gateway_call_timeout_ms
            ));
        }
        problems
    }
}

/// Refunds and the token go to this URL, unencrypted only to this machine. The message never repeats the URL: it may hold a
/// login.
fn parse_gateway_url(text: &str) -> Result<Url, String> {
    let url: Url = text
        .parse()
        .map_err(|error| format!("GATEWAY_URL is no URL: {error}"))?;
    let is_here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if url.scheme() != "https" && !(url.scheme() == "http" && is_here) {
        return Err("GATEWAY_URL must be https://…, or http:// to this machine".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("GATEWAY_URL holds a login; use GATEWAY_TOKEN".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("GATEWAY_URL has a query or a fragment".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p13_calls_go_over_tls_or_stay_on_this_machine() {
        for good in [
            "https://pay.example/v1",
            "http://127.0.0.1:8080",
            "http://[::1]:1/a/",
        ] {
            assert!(parse_gateway_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://pay.example",
            "http://127.0.0.1.pay.example",
            "ftp://localhost",
            "https://me:secret@pay.example",
            "https://pay.example/?a=b",
            "pay.example",
            "",
        ] {
            assert!(parse_gateway_url(bad).is_err(), "{bad}");
        }
    }
}
