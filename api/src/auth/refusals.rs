//! Reports to operators why requests are refused: each in a counter, and some in the log.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::metrics::Metrics;

/// Per second. A client that sends bad tokens must not fill the disk.
const LOG_LINES: NonZeroU32 = NonZeroU32::new(20).expect("not 0");

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

    /// `code` is a metric label; `reason` never repeats the token.
    pub(super) fn report(&self, request_id: &str, code: &str, reason: &dyn Display) {
        self.metrics.auth.refusals.with_label_values(&[code]).inc();
        if self.lines.check().is_ok() {
            tracing::info!(code, %reason, request.id = request_id, "a request was refused");
        }
    }
}
