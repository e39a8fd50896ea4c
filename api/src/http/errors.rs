//! How errors are rendered: RFC 9457 `application/problem+json` with a stable `type`.
//!
//! `catalogue` is the only table from error to HTTP status. A handler returns an error as an empty response that
//! carries it; [`super::serve`] renders it, because it knows the request id.

mod catalogue;

use serde::Serialize;
use shared::domain::eligibility::Violation;
use shared::domain::ids::ReturnId;
use shared::domain::status::Status;
use shared::domain::trace_context::TraceContext;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};
use warp::Reply;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;

pub(crate) use self::catalogue::Entry;
use super::context::RequestContext;
use super::public_url::PublicUrl;
use crate::error::{ApiError, ErrorKind, FieldError};

/// Seconds. A fifth of the limit has to drain before filings are accepted again: 2 M rows by default, which takes 28 to
/// 60 s at 71,000 to 33,000 rows/s. An earlier retry is refused again; a later one lets customers wait for nothing.
const BACKLOG_RETRY_SECS: u32 = 30;
/// Seconds. Streams close and exports end at any time, but rarely soon.
const STREAMS_RETRY_SECS: u32 = 10;

impl ApiError {
    fn entry(&self) -> Entry {
        ErrorKind::from(self).entry()
    }

    pub(super) fn status(&self) -> StatusCode {
        self.entry().status
    }

    /// Particulars of this case that are safe to show.
    fn detail(&self) -> Option<String> {
        match self {
            Self::BadRequest(detail) | Self::InvalidTransition { detail, .. } => {
                Some(detail.clone())
            }
            Self::BrokenTrail {
                return_id,
                version,
                present,
            } => Some(format!(
                "return {return_id} has {present} of its {version} events"
            )),
            _ => None,
        }
    }

    /// Seconds after which the same request may succeed.
    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::BacklogFull(_) => Some(BACKLOG_RETRY_SECS),
            Self::TooManyStreams | Self::TooManyExports => Some(STREAMS_RETRY_SECS),
            Self::RateLimited { retry_after } => Some(*retry_after),
            _ => self.entry().has_retry_after().then_some(1),
        }
    }

    /// `WWW-Authenticate` (RFC 6750, 3): no error code for a request without a token.
    fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Unauthenticated => Some(r#"Bearer realm="returns""#),
            Self::InvalidToken => Some(r#"Bearer realm="returns", error="invalid_token""#),
            Self::Forbidden => Some(r#"Bearer realm="returns", error="insufficient_scope""#),
            _ => None,
        }
    }

    /// The problem document.
    pub(super) fn render(&self, context: &RequestContext, public_url: &PublicUrl) -> Response {
        let problem = warp::reply::json(&self.problem(context, public_url));
        let mut response = warp::reply::with_status(problem, self.status()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge() {
            let challenge = HeaderValue::from_static(challenge);
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }

    fn problem(&self, context: &RequestContext, public_url: &PublicUrl) -> Problem {
        let (request_id, trace) = (context.request_id(), context.span.context());
        let mut problem = Problem::new(self.entry(), request_id, trace, public_url);
        problem.detail = self.detail();
        match self {
            Self::AlreadyOpen { return_id } => problem.return_id = Some(*return_id),
            Self::InvalidTransition { status, .. } => problem.current_status = Some(*status),
            Self::InvalidFields(errors) => problem.errors = Some(errors.clone()),
            Self::NotEligible(violations) => problem.violations = Some(violations.clone()),
            _ => {}
        }
        problem
    }
}

/// The media type of every error.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document (RFC 9457). `type` is a link to a page of this server that explains the error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    #[schema(format = "uri-reference", example = "/problems/not-eligible")]
    kind: String,
    #[schema(value_type = ProblemCode, inline)]
    code: &'static str,
    title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// Particulars of this case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
    /// As in `X-Request-Id`: operators find the request in the log by it.
    request_id: String,
    /// The W3C trace of the request: its spans have it.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    trace_id: String,
    /// The request's span, or the caller's if none was recorded.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    span_id: String,
    /// The open return (`already-open`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<i64>)]
    return_id: Option<ReturnId>,
    /// The return's present status (`invalid-transition`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    current_status: Option<Status>,
    /// Each invalid field (`invalid-fields`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    errors: Option<Vec<FieldError>>,
    /// Each rule that the order breaks (`not-eligible`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    violations: Option<Vec<Violation>>,
}

/// The values of a problem's `code`.
struct ProblemCode;

impl PartialSchema for ProblemCode {
    fn schema() -> RefOr<Schema> {
        let codes = ErrorKind::catalogue().into_iter().map(|entry| entry.code);
        let schema = ObjectBuilder::new().schema_type(Type::String);
        schema
            .enum_values(Some(codes))
            .description(Some(
                "The last part of `type`, which is the same behind every proxy.",
            ))
            .into()
    }
}

impl ToSchema for ProblemCode {}

impl Problem {
    pub(super) fn new(
        entry: Entry,
        request_id: &str,
        trace: &TraceContext,
        public_url: &PublicUrl,
    ) -> Self {
        Self {
            kind: public_url.link(&format!("/problems/{}", entry.code)),
            code: entry.code,
            title: entry.title,
            status: entry.status.as_u16(),
            detail: None,
            request_id: request_id.to_owned(),
            trace_id: trace.trace_id().to_owned(),
            span_id: trace.span_id().to_owned(),
            return_id: None,
            current_status: None,
            errors: None,
            violations: None,
        }
    }
}

/// An empty response that carries the error, until [`super::serve`] renders it with the request id.
impl Reply for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
