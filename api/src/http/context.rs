//! Facts about a request that do not belong to any one endpoint, and its span.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use shared::domain::trace_context::TraceContext;
use shared::runtime::trace::{self, CancelOnDrop, KeyValue, Span, SpanKind, names};
use uuid::Uuid;
use warp::http::{HeaderMap, HeaderName, Method, StatusCode};

use super::client::Client;
use super::rate_limit::RateDecision;
use crate::auth::RequestSource;

pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const REQUEST_ID_MAX: usize = 64;

/// The context of one request, shared by the server and the endpoint.
#[derive(Debug)]
pub(super) struct RequestContext {
    pub(super) source: Arc<RequestSource>,
    pub(super) span: Span,
    /// The request is dropped if its client goes away.
    _until_end: CancelOnDrop,
    rate: OnceLock<RateDecision>,
    body_read: AtomicBool,
}

impl RequestContext {
    /// Only a trusted proxy names the request and its trace: a stranger could give a request the id or the trace of
    /// another one, and both are stored for ever.
    pub(super) fn of(headers: &HeaderMap, client: Option<Client>, route: &'static str) -> Self {
        let is_trusted = client.is_some_and(|client| client.is_behind_proxy);
        let lines = |name: &str| {
            let values = headers.get_all(name).iter().filter(|_| is_trusted);
            values.filter_map(|value| value.to_str().ok())
        };
        let given = lines(REQUEST_ID.as_str())
            .next()
            .filter(|id| is_request_id(id));
        let parent = TraceContext::from_headers(lines("traceparent"), lines("tracestate"));
        let span = trace::span(SpanKind::Server, "HTTP")
            .child_of(parent.as_ref())
            .start();
        Self {
            source: Arc::new(RequestSource {
                request_id: given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned),
                client: client.map(|client| client.address),
                route,
            }),
            _until_end: span.cancel_on_drop(),
            span,
            rate: OnceLock::new(),
            body_read: AtomicBool::new(false),
        }
    }

    pub(super) fn request_id(&self) -> &str {
        &self.source.request_id
    }

    /// Describes the request in its span.
    pub(super) fn describe(&self, method: &Method, path: &str) {
        if !self.span.is_recorded() {
            return;
        }
        let (route, method) = (self.source.route, super::method_label(method));
        // Never the path itself: names have few values.
        self.span.rename(format!("{method} {route}"));
        self.span.set(|| {
            [
                KeyValue::new(names::HTTP_REQUEST_METHOD, method),
                KeyValue::new(names::HTTP_ROUTE, route),
                KeyValue::new(names::URL_PATH, trace::clipped(path)),
                KeyValue::new(names::URL_SCHEME, "http"),
                KeyValue::new(names::REQUEST_ID, self.source.request_id.clone()),
            ]
        });
        if let Some(client) = self.source.client {
            self.span
                .set(|| [KeyValue::new(names::CLIENT_ADDRESS, client.to_string())]);
        }
    }

    /// Ends the span. A client's mistake is no failure of this server.
    pub(super) fn end(&self, status: StatusCode) {
        self.span.set(|| {
            let status = i64::from(status.as_u16());
            [KeyValue::new(names::HTTP_RESPONSE_STATUS_CODE, status)]
        });
        if status.is_server_error() {
            self.span.fail(status.as_str().to_owned());
        }
        self.span.end();
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

/// Only characters that no log, spreadsheet, shell or page gives a meaning.
fn is_request_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=REQUEST_ID_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    /// The context of a request that names itself and its trace.
    fn named(id: &str, is_behind_proxy: bool) -> RequestContext {
        let mut headers = HeaderMap::new();
        let trace = format!("00-{TRACE}-00f067aa0ba902b7-01");
        for (name, value) in [("x-request-id", id), ("traceparent", &trace)] {
            headers.insert(name, HeaderValue::from_str(value).expect("visible ASCII"));
        }
        let client = Client {
            address: "192.0.2.1".parse().expect("an address"),
            is_behind_proxy,
        };
        RequestContext::of(&headers, Some(client), "/returns")
    }

    #[test]
    fn a_request_id_has_only_harmless_characters() {
        let longest = "a".repeat(64);
        for good in ["req-1", "A.b_c:9-", &longest] {
            assert_eq!(named(good, true).request_id(), good);
        }
        let longer = "a".repeat(65);
        for bad in [
            "",
            "a b",
            "x;=WEBSERVICE(A1);",
            "=1",
            "a,b",
            "a\tb",
            "<b>",
            "a/b",
            "\"a\"",
            &longer,
        ] {
            let given = named(bad, true);
            assert!(given.request_id().parse::<Uuid>().is_ok(), "{bad:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_names_a_request_and_its_trace() {
        let behind = named("req-1", true);
        assert_eq!(
            (behind.request_id(), behind.span.context().trace_id()),
            ("req-1", TRACE)
        );
        let direct = named("req-1", false);
        assert_ne!(direct.request_id(), "req-1");
        assert_ne!(direct.span.context().trace_id(), TRACE);
    }
}
