//! A trace backend that answers as Jaeger's query API does: `GET /api/v3/traces/{id}` gives OTLP in JSON.

use std::time::Duration;

use reqwest::{Client, StatusCode, Url};
use tokio::time::{Instant, timeout_at};

use super::otlp;
use super::span::Span;
use crate::error::CtlError;

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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("{0}")]
    Client(#[source] reqwest::Error),
    #[error("no complete answer within {} s", DEADLINE.as_secs())]
    DeadlinePassed,
}

impl Backend {
    pub(super) fn new(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        Self {
            client: Client::new(),
            base: url.as_str().trim_end_matches('/').to_owned(),
            address: format!("{host}:{port}"),
            until: Instant::now() + DEADLINE,
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The spans of a trace; `None`: it has no such trace.
    ///
    /// # Errors
    /// It does not answer in time, or not as Jaeger does.
    pub(super) async fn trace(&self, trace_id: &str) -> Result<Option<Vec<Span>>, CtlError> {
        let answer = timeout_at(self.until, self.get(trace_id)).await;
        let answer = match answer {
            Ok(answer) => answer.map_err(NoAnswer::Client),
            Err(_) => Err(NoAnswer::DeadlinePassed),
        };
        match answer {
            Ok((StatusCode::OK, Some(body))) => self.read(trace_id, &body),
            Ok((StatusCode::OK, None)) => Err(self.strange("with more than 64 MiB")),
            Ok((StatusCode::NOT_FOUND, _)) => Ok(None),
            Ok((status, _)) => Err(self.strange(&format!("with status {status}"))),
            Err(reason) => Err(CtlError::Unreachable {
                server: format!("the trace backend at {}", self.address),
                source: Box::new(reason),
            }),
        }
    }

    /// The status and the body, unless that is too long.
    async fn get(&self, trace_id: &str) -> reqwest::Result<(StatusCode, Option<Vec<u8>>)> {
        let url = format!("{}/api/v3/traces/{trace_id}", self.base);
        let sent = self.client.get(url).send().await;
        // The address may hold a password.
        let mut response = sent.map_err(reqwest::Error::without_url)?;
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(reqwest::Error::without_url)?
        {
            if body.len() + chunk.len() > MAX_BYTES {
                return Ok((response.status(), None));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), Some(body)))
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
