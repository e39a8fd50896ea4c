//! Reports to operators why requests are refused: each in a counter, and some in the log.

use std::fmt::Display;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::metrics::Metrics;

/// Per second. A client that sends bad tokens must not fill the disk.
const LOG_LINES: NonZeroU32 = NonZeroU32::new(20).expect("not 0");

/// How operators find a request and its client.
#[derive(Debug)]
pub(crate) struct RequestSource {
    /// Also in the response, in the audit trail and in each line of the log about it.
    pub(crate) request_id: String,
    /// `None` only in tests, where a request has no peer.
    pub(crate) client: Option<IpAddr>,
    /// The template of the path, which contains nothing that the client chose.
    pub(crate) route: &'static str,
}

#[derive(Debug)]
pub(super) struct Refusals {
    metrics: Arc<Metrics>,
    lines: DefaultDirectRateLimiter,
}

impl Refusals {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            lines: RateLimiter::direct(Quota::per_second(LOG_LINES)),
        }
    }

    /// For a refusal whose cause has lines of its own in the log.
    pub(super) fn count(&self, code: &str) {
        self.metrics.auth.refusals.with_label_values(&[code]).inc();
    }

    /// `code` is a metric label; `reason` never repeats the token.
    pub(super) fn report(&self, source: &RequestSource, code: &str, reason: &dyn Display) {
        self.count(code);
        if self.lines.check().is_err() {
            return;
        }
        let client = source.client.map(tracing::field::display);
        tracing::info!(code, %reason, client.address = client, http.route = source.route, "a request was refused");
    }
}
