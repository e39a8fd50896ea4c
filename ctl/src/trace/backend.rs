//! A trace backend that answers as Jaeger's query API does: `GET /api/v3/traces/{id}` gives OTLP in JSON.

use std::time::Duration;

use reqwest::{Client, StatusCode, Url};
use tokio::time::{Instant, timeout_at};

use super::otlp;
use super::span::Span;
use crate::error::CtlError;
use crate::http;

/// For all traces of a return: a person waits, and the rows are there without it.
const DEADLINE: Duration = Duration::from_secs(5);
/// Above the largest trace that is of any use.
const MAX_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Backend {
    client: Client,
    /// Without a slash at its end.
    base: String,
    /// Host and port, for messages: never a user or a password.
    address: String,
    until: Instant,
}

impl Backend {
    pub(super) fn new(url: &Url) -> Result<Self, CtlError> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        Ok(Self {
            client: http::client()?,
            base: url.as_str().trim_end_matches('/').to_owned(),
            address: format!("{host}:{port}"),
            until: Instant::now() + DEADLINE,
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The spans of a trace; `None`: it has no such trace.
    ///
    /// # Errors
    /// It does not answer in time, or not as Jaeger does.
    pub(super) async fn trace(&self, trace_id: &str) -> Result<Option<Vec<Span>>, CtlError> {
        let url = format!("{}/api/v3/traces/{trace_id}", self.base);
        let server = format!("the trace backend at {}", self.address);
        let answer = http::get(&self.client, &url, MAX_BYTES, &server);
        let Ok(answer) = timeout_at(self.until, answer).await else {
            let reason = format!("no complete answer within {} s", DEADLINE.as_secs());
            return Err(CtlError::Unreachable {
                server,
                source: reason.into(),
            });
        };
        match answer? {
            (StatusCode::OK, body) => self.read(trace_id, &body),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, _) => Err(self.strange(&format!("with status {status}"))),
        }
    }

    fn read(&self, trace_id: &str, body: &[u8]) -> Result<Option<Vec<Span>>, CtlError> {
        let spans = otlp::spans(trace_id, body);
        let spans = spans.map_err(|error| self.strange(&format!("with no trace: {error}")))?;
        Ok((!spans.is_empty()).then_some(spans))
    }

    fn strange(&self, how: &str) -> CtlError {
        CtlError::Problem(format!(
            "the trace backend at {} answered {how}.\n\
             To do: see that TRACE_QUERY_URL is the address of Jaeger's query API (port 16686)",
            self.address
        ))
    }
}
