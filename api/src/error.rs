//! Every error a client can see, and the only table from error to HTTP.
//!
//! Bodies are RFC 9457 `application/problem+json` with a stable `type`. They never carry SQL, Debug text or other
//! people's ids; causes go to the log.

use serde::Serialize;
use shared::auth::KeyError;
use shared::db::DbFailure;
use shared::eligibility::Violation;
use shared::ids::ReturnId;
use shared::schema::SchemaError;
use warp::Reply;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;

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

/// What went wrong, by what the client can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the content type must be application/json")]
    UnsupportedMediaType,
    #[error("the request has invalid fields")]
    InvalidFields(Vec<FieldError>),
    #[error("the order cannot be returned")]
    NotEligible(Vec<Violation>),
    #[error("this Idempotency-Key was used with another body")]
    KeyReused,
    #[error("too many filings are waiting")]
    Busy,
    #[error("too many events wait to be published, new returns are not taken")]
    BacklogFull(Excess),
    #[error("whether you may do this could not be decided in time")]
    Undecided,
    #[error("it cannot be told now whether your token was revoked")]
    RevocationsUnknown,
    #[error("the service cannot answer now")]
    Unavailable,
    #[error("it is not known whether the return was filed")]
    OutcomeUnknown,
    #[error("internal error")]
    Internal,
}

/// A fifth of the limit has to drain before filings are accepted again: 2 M rows by default, 28 to 60 s at 71,000 to
/// 33,000 rows/s. Asking much earlier brings the same refusal, much later lets customers wait for nothing.
const BACKLOG_RETRY_SECS: u32 = 30;

/// One field of the request and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
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
    /// The status code.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::UnknownOrder => StatusCode::BAD_REQUEST,
            Self::Unauthenticated | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::AlreadyOpen { .. } => StatusCode::CONFLICT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidFields(_) | Self::NotEligible(_) | Self::KeyReused => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::Busy
            | Self::BacklogFull(_)
            | Self::Undecided
            | Self::RevocationsUnknown
            | Self::Unavailable
            | Self::OutcomeUnknown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable name: the last part of the problem's `type`, and a metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::UnknownOrder => "unknown-order",
            Self::Unauthenticated | Self::InvalidToken => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::AlreadyOpen { .. } => "already-open",
            Self::BodyTooLarge { .. } => "body-too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::InvalidFields(_) => "invalid-fields",
            Self::NotEligible(_) => "not-eligible",
            Self::KeyReused => "idempotency-key-reused",
            Self::Busy => "busy",
            Self::BacklogFull(_) => "backlog-full",
            Self::Undecided => "undecided",
            Self::RevocationsUnknown => "revocations-unknown",
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Internal => "internal",
        }
    }

    /// Seconds after which the same request may succeed.
    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::BacklogFull(_) => Some(BACKLOG_RETRY_SECS),
            _ => (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
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
        let problem = Problem {
            kind: format!("/problems/{}", self.code()),
            title: self.to_string(),
            status: self.status().as_u16(),
            request_id,
            return_id: match self {
                Self::AlreadyOpen { return_id } => Some(*return_id),
                _ => None,
            },
            errors: match self {
                Self::InvalidFields(fields) => Some(fields),
                _ => None,
            },
            violations: match self {
                Self::NotEligible(violations) => Some(violations),
                _ => None,
            },
        };
        let mut response =
            warp::reply::with_status(warp::reply::json(&problem), self.status()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge() {
            let challenge = HeaderValue::from_static(challenge);
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_id: Option<ReturnId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<&'a Vec<FieldError>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    violations: Option<&'a Vec<Violation>>,
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
