//! Everything that can go wrong with a request, by what its client can do about it.
//!
//! Nothing here knows HTTP: `http::errors` is the only table from error to status, title and advice. An error never
//! carries SQL, `Debug` text or other customers' ids; its cause goes to the log.

use serde::Serialize;
use shared::domain::eligibility::Violation;
use shared::domain::ids::ReturnId;
use shared::domain::status::Status;
use shared::runtime::db::DbError;
use shared::runtime::tasks::{Rarely, chain};
use utoipa::ToSchema;

/// Why a request failed. [`ErrorKind`] is the same without the particulars.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, strum::EnumDiscriminants)]
#[strum_discriminants(
    name(ErrorKind),
    derive(strum::EnumIter, strum::IntoStaticStr),
    strum(serialize_all = "kebab-case")
)]
#[strum_discriminants(
    doc = "A kind of [`ApiError`]. As text: the last part of a problem's `type`, and a metric label."
)]
pub enum ApiError {
    #[error("{0}")]
    BadRequest(String),
    #[error("the caller has no order with this id")]
    UnknownOrder,
    #[error("a valid bearer token is required")]
    Unauthenticated,
    /// The request has a token. The log says which check it failed; the response does not.
    #[error("a valid bearer token is required")]
    #[strum_discriminants(strum(serialize = "unauthenticated"))]
    InvalidToken,
    #[error("the token does not allow this")]
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
    #[error("none of the accepted media types is available")]
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
    #[error("too many exports are in progress")]
    TooManyExports,
    #[error("the request has invalid fields")]
    InvalidFields(Vec<FieldError>),
    #[error("the order cannot be returned")]
    NotEligible(Vec<Violation>),
    #[error("this Idempotency-Key was used with another body")]
    #[strum_discriminants(strum(serialize = "idempotency-key-reused"))]
    KeyReused,
    #[error("If-Match is required")]
    PreconditionRequired,
    #[error("too many filings are waiting")]
    Busy,
    #[error(
        "too many events wait to be published, or it is not known how many; new returns are refused"
    )]
    BacklogFull(Excess),
    #[error("too many streams are open")]
    TooManyStreams,
    #[error("the authorization policy was not evaluated in time")]
    Undecided,
    #[error("the list of revoked tokens is too old")]
    RevocationsUnknown,
    #[error("the service is unavailable")]
    Unavailable,
    #[error("it is not known whether the change was written")]
    OutcomeUnknown,
    #[error("the audit trail of return {return_id} lacks events")]
    #[strum_discriminants(strum(serialize = "audit-trail-broken"))]
    BrokenTrail {
        return_id: ReturnId,
        version: i32,
        present: i64,
    },
    #[error("internal error")]
    Internal,
}

/// Which limit of the backlog is exceeded, or may be. As text: a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Excess {
    Rows,
    Bytes,
    /// It is not known how much waits.
    Unmeasured,
}

/// One invalid field of a body, or one invalid parameter of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// In the body: a JSON pointer as a fragment (RFC 6901, 6); `#` is the whole body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "#/order_id")]
    pub pointer: Option<String>,
    /// In the query: the name of the parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parameter: Option<String>,
    /// What is wrong with it.
    pub detail: String,
}

impl FieldError {
    /// About a field of the body, or about all of it.
    pub(crate) fn in_body(field: Option<&str>, detail: impl Into<String>) -> Self {
        Self {
            pointer: Some(field.map_or_else(|| "#".to_owned(), pointer)),
            parameter: None,
            detail: detail.into(),
        }
    }

    pub(crate) fn in_query(parameter: &str, detail: impl Into<String>) -> Self {
        Self {
            pointer: None,
            parameter: Some(parameter.to_owned()),
            detail: detail.into(),
        }
    }
}

/// `~` and `/` are escaped as in a pointer, everything that a fragment cannot hold as in a URI (RFC 3986, 3.5).
fn pointer(field: &str) -> String {
    let mut pointer = "#/".to_owned();
    for byte in field.bytes() {
        match byte {
            b'~' => pointer.push_str("~0"),
            b'/' => pointer.push_str("~1"),
            _ if byte.is_ascii_alphanumeric() || b"-._!$&'()*+,;=:@?".contains(&byte) => {
                pointer.push(char::from(byte));
            }
            _ => pointer.push_str(&format!("%{byte:02X}")),
        }
    }
    pointer
}

impl ErrorKind {
    /// The stable name: the last part of the problem's `type`, and a metric label.
    pub fn code(self) -> &'static str {
        self.into()
    }
}

impl Excess {
    /// A metric label.
    pub(crate) fn code(self) -> &'static str {
        self.into()
    }
}

impl ApiError {
    /// See [`ErrorKind::code`].
    pub fn code(&self) -> &'static str {
        ErrorKind::from(self).code()
    }
}

/// For a database error that no use case decides. The cause goes to the log, not into the response.
impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        // An outage fails every request; the metrics count them.
        static UNAVAILABLE: Rarely = Rarely::new();
        if error.is_transient() {
            if let Some(left_out) = UNAVAILABLE.due() {
                let error = chain(&error);
                tracing::warn!(error, left_out, "the database is unavailable");
            }
            Self::Unavailable
        } else {
            tracing::error!(error = chain(&error), "a use of the database failed");
            Self::Internal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_a_fragment_of_a_uri() {
        for (field, expected) in [
            ("order_id", "#/order_id"),
            ("", "#/"),
            ("a/b~c", "#/a~1b~0c"),
            ("gr\u{fc}n \"%", "#/gr%C3%BCn%20%22%25"),
        ] {
            let error = FieldError::in_body(Some(field), "x");
            assert_eq!(error.pointer.as_deref(), Some(expected));
        }
        assert_eq!(FieldError::in_body(None, "x").pointer.as_deref(), Some("#"));
    }
}
