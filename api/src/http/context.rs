//! Facts about a request that do not belong to any one endpoint.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::domain::trace_context::TraceContext;
use uuid::Uuid;
use warp::http::{HeaderMap, HeaderName};

use super::rate_limit::RateDecision;

pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The context of one request, shared by the server and the endpoint.
#[derive(Debug)]
pub(super) struct RequestContext {
    /// The client's `X-Request-Id` if it is 1 to 64 visible ASCII characters, else a new one.
    pub(super) request_id: String,
    pub(super) trace: TraceContext,
    rate: OnceLock<RateDecision>,
    body_read: AtomicBool,
}

impl RequestContext {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let given = text(REQUEST_ID.as_str())
            .filter(|id| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
        Self {
            request_id: given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned),
            trace: TraceContext::from_headers(text("traceparent"), text("tracestate")),
            rate: OnceLock::new(),
            body_read: AtomicBool::new(false),
        }
    }

    /// Keeps the rate limit's decision about the caller, for the response's headers.
    pub(super) fn set_rate(&self, rate: RateDecision) {
        // A request has one caller, so nothing is overwritten.
        let _ = self.rate.set(rate);
    }

    pub(super) fn rate(&self) -> Option<&RateDecision> {
        self.rate.get()
    }

    pub(super) fn set_body_read(&self) {
        self.body_read.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_body_read(&self) -> bool {
        self.body_read.load(Ordering::Relaxed)
    }
}
