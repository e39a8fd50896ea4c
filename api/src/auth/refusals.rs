//! Tells operators why callers are refused: all of it as a counter, and some of it in the log.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::metrics::Metrics;

/// Lines a second: whoever sends bad tokens must not fill the disk.
const LINES: NonZeroU32 = NonZeroU32::new(20).expect("not 0");

#[derive(Debug)]
pub(super) struct Refusals {
    metrics: Arc<Metrics>,
    lines: DefaultDirectRateLimiter,
}

impl Refusals {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            lines: RateLimiter::direct(Quota::per_second(LINES)),
        }
    }

    /// `code` is one of few; `reason` never repeats the token.
    pub(super) fn tell(&self, request_id: &str, code: &str, reason: &dyn Display) {
        self.metrics.auth.refusals.with_label_values(&[code]).inc();
        if self.lines.check().is_ok() {
            tracing::info!(code, %reason, request.id = request_id, "a caller was refused");
        }
    }
}
