//! Every error a client can see; `catalogue` is the only table from error to HTTP.
//!
//! Bodies are RFC 9457 `application/problem+json` with a stable `type`. They never carry SQL, Debug text or other
//! people's ids; causes go to the log.

mod catalogue;

use serde::Serialize;
use shared::auth::KeyError;
use shared::domain::eligibility::Violation;
use shared::domain::ids::ReturnId;
use shared::domain::status::Status;
use shared::runtime::db::DbFailure;
use shared::runtime::schema::SchemaError;
use utoipa::ToSchema;
use warp::Reply;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;

pub use self::catalogue::Entry;
use crate::backlog::Excess;

/// Why the api did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{0}")]
    Settings(String),
    #[error("the database cannot be used")]
    Schema(#[from] SchemaError),
    #[error("the list of revoked tokens cannot be read")]
    Revocations(#[from] sqlx::Error),
    #[error("a background task ended early; the log says which")]
    TaskEnded,
}

/// What went wrong, by what the client can do about it; [`ProblemType`] is the same without the particulars.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, strum::EnumDiscriminants)]
#[strum_discriminants(name(ProblemType), derive(strum::EnumIter))]
#[strum_discriminants(doc = "A kind of [`ApiError`].")]
pub enum ApiError {
    #[error("{0}")]
    BadRequest(String),
    #[error("no order of yours has this id")]
    UnknownOrder,
    #[error("a valid bearer token is required")]
    Unauthenticated,
    /// There was one. Which check it failed is in the log, not in the answer.
    #[error("a valid bearer token is required")]
    InvalidToken,
    #[error("your token does not allow this")]
    Forbidden,
    #[error("no such resource")]
    NotFound,
    #[error("this resource does not support the method")]
    MethodNotAllowed,
    #[error("the order already has an open return")]
    AlreadyOpen { return_id: ReturnId },
    #[error("{detail}")]
    InvalidTransition { status: Status, detail: String },
    #[error("the return has changed")]
    PreconditionFailed,
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    /// Nothing that `Accept` names can be given.
    #[error("none of the accepted media types is offered here")]
    NotAcceptable,
    #[error("the content type must be application/json")]
    UnsupportedMediaType,
    #[error("the body must not be compressed")]
    UnsupportedContentEncoding,
    #[error("the body did not arrive in time")]
    RequestTimeout,
    #[error("the request target is too long")]
    UriTooLong,
    #[error("this server speaks HTTP/1.1")]
    HttpVersionNotSupported,
    #[error("too many requests")]
    RateLimited { retry_after: u32 },
    #[error("too many exports are under way")]
    TooManyExports,
    #[error("the request has invalid fields")]
    InvalidFields(Vec<FieldError>),
    #[error("the order cannot be returned")]
    NotEligible(Vec<Violation>),
    #[error("this Idempotency-Key was used with another body")]
    KeyReused,
    #[error("If-Match is required")]
    PreconditionRequired,
    #[error("too many filings are waiting")]
    Busy,
    #[error("too many events wait to be published, new returns are not taken")]
    BacklogFull(Excess),
    #[error("too many streams are open")]
    TooManyStreams,
    #[error("whether you may do this could not be decided in time")]
    Undecided,
    #[error("it cannot be told now whether your token was revoked")]
    RevocationsUnknown,
    #[error("the service cannot answer now")]
    Unavailable,
    #[error("it is not known whether it was done")]
    OutcomeUnknown,
    #[error("internal error")]
    Internal,
}

/// A fifth of the limit has to drain before filings are accepted again: 2 M rows by default, 28 to 60 s at 71,000 to
/// 33,000 rows/s. Asking much earlier brings the same refusal, much later lets customers wait for nothing.
const BACKLOG_RETRY_SECS: u32 = 30;
/// A stream is closed, and an export ends, for all sorts of reasons, none of them soon.
const STREAMS_RETRY_SECS: u32 = 10;

/// One field of the request and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// As a path into the body, or the name of the parameter; empty for the whole body.
    pub field: String,
    pub message: String,
}

impl FieldError {
    pub fn new(field: &str, message: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            message: message.into(),
        }
    }
}

impl ApiError {
    fn entry(&self) -> Entry {
        ProblemType::from(self).entry()
    }

    /// The status code.
    pub fn status(&self) -> StatusCode {
        self.entry().status
    }

    /// The stable name: the last part of the problem's `type`, and a metric label.
    pub fn code(&self) -> &'static str {
        self.entry().slug
    }

    /// What is particular about this one; safe to show.
    fn detail(&self) -> Option<String> {
        match self {
            Self::BadRequest(detail) | Self::InvalidTransition { detail, .. } => {
                Some(detail.clone())
            }
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

    /// `WWW-Authenticate` (RFC 6750, 3): no code where no token was sent.
    fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Unauthenticated => Some(r#"Bearer realm="returns""#),
            Self::InvalidToken => Some(r#"Bearer realm="returns", error="invalid_token""#),
            Self::Forbidden => Some(r#"Bearer realm="returns", error="insufficient_scope""#),
            _ => None,
        }
    }

    /// The answer for a database error that no use case decides: logged here, told to the client without detail.
    pub fn from_database(error: &sqlx::Error) -> Self {
        let failure = DbFailure::of(error);
        if failure.is_transient() {
            tracing::warn!(error = %error, failure = ?failure, "database unavailable");
            Self::Unavailable
        } else {
            tracing::error!(error = %error, "database error");
            Self::Internal
        }
    }

    /// The problem document.
    pub fn render(&self, request_id: &str) -> Response {
        let mut response =
            warp::reply::with_status(warp::reply::json(&self.problem(request_id)), self.status())
                .into_response();
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

    fn problem(&self, request_id: &str) -> Problem {
        let mut problem = Problem::new(self.entry(), request_id);
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
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document (RFC 9457). `type` is a reference to a page of this server that explains it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    #[schema(format = "uri-reference", example = "/problems/not-eligible")]
    kind: String,
    title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is particular about this case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
    /// As in `X-Request-Id`: what the operators find it by.
    request_id: String,
    /// The open return (`already-open`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<i64>)]
    return_id: Option<ReturnId>,
    /// Where the return stands (`invalid-transition`).
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

impl Problem {
    pub(crate) fn new(entry: Entry, request_id: &str) -> Self {
        Self {
            kind: format!("/problems/{}", entry.slug),
            title: entry.title,
            status: entry.status.as_u16(),
            detail: None,
            request_id: request_id.to_owned(),
            return_id: None,
            current_status: None,
            errors: None,
            violations: None,
        }
    }
}

/// An error leaves a handler as an empty response that carries it; the server renders it once it knows the request
/// id (`server::answer`).
impl Reply for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
