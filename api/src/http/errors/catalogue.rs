//! The only table from error to HTTP: status, title and advice for every kind of error.
//!
//! `docs/ERRORS.md`, `/problems/{code}` and the error responses of `openapi.json` are generated from it.

use strum::IntoEnumIterator;
use warp::http::StatusCode;

use crate::error::ErrorKind;

/// What all errors of one kind have in common (RFC 9457, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) status: StatusCode,
    /// See [`ErrorKind::code`].
    pub(crate) code: &'static str,
    pub(crate) title: &'static str,
    /// When the api responds with it.
    pub(crate) when: &'static str,
    /// What the client can do about it.
    pub(crate) advice: &'static str,
}

impl Entry {
    /// Whether the same request may succeed a little later.
    pub(crate) fn has_retry_after(&self) -> bool {
        matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        )
    }
}

impl ErrorKind {
    pub(crate) fn entry(self) -> Entry {
        let row = |status, title, when, advice| Entry {
            status,
            code: self.code(),
            title,
            when,
            advice,
        };
        match self {
            Self::BadRequest => row(
                StatusCode::BAD_REQUEST,
                "The request cannot be understood",
                "The body is not valid JSON, the query has unknown or repeated parameters, or a header cannot be parsed. `detail` says which.",
                "Correct the request. The same request will be refused again.",
            ),
            Self::UnknownOrder => row(
                StatusCode::BAD_REQUEST,
                "No order of yours has this id",
                "The order does not exist or belongs to another customer than the one for whom the return is filed. The response does not say which.",
                "Take the id from `GET /orders`; with `customer_id`, check that the order is that customer's.",
            ),
            Self::Unauthenticated | Self::InvalidToken => row(
                StatusCode::UNAUTHORIZED,
                "A valid bearer token is required",
                "The token is missing, malformed, expired, revoked, for another audience, or signed by an unknown key. Only the operators' log says which.",
                "Get a new token and send it as `Authorization: Bearer`.",
            ),
            Self::Forbidden => row(
                StatusCode::FORBIDDEN,
                "Your token does not allow this",
                "The token's role, or a restriction in the token, does not allow the request; or the request is a decision about your own return, or about one that you filed for a customer, which another person must make. An admin files a return only for a customer who is named in `customer_id`; nobody else may name one.",
                "Use another token, or ask a person with the required role.",
            ),
            Self::NotFound => row(
                StatusCode::NOT_FOUND,
                "No such resource",
                "The path names nothing, or it names something that belongs to another customer. The response does not say which.",
                "Check the id, and which token you use.",
            ),
            Self::MethodNotAllowed => row(
                StatusCode::METHOD_NOT_ALLOWED,
                "This resource does not support the method",
                "The path exists, but not with this method. `Allow` lists the methods that it supports.",
                "Look up the operation in `/openapi.json`.",
            ),
            Self::NotAcceptable => row(
                StatusCode::NOT_ACCEPTABLE,
                "None of the accepted media types is available",
                "`Accept` names no media type that this path can respond with.",
                "Omit `Accept` for JSON, or name one of the media types in `/openapi.json`.",
            ),
            Self::AlreadyOpen => row(
                StatusCode::CONFLICT,
                "The order already has an open return",
                "A return for this order was filed before and has not ended. `return_id` is its id.",
                "Follow that return, or cancel it first.",
            ),
            Self::InvalidTransition => row(
                StatusCode::CONFLICT,
                "The return's state does not allow this",
                "The return exists and `If-Match` is right, but its status does not allow the action. See `current_status` and `detail`.",
                "Read the return again and check what its status allows.",
            ),
            Self::PreconditionFailed => row(
                StatusCode::PRECONDITION_FAILED,
                "The return has changed since you read it",
                "`If-Match` does not name the return's present `ETag`.",
                "Read the return again, decide again, and send its new `ETag`.",
            ),
            Self::BodyTooLarge => row(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body is too large",
                "The body has more than 16 KiB.",
                "Send a smaller body. A reason has at most 1000 characters.",
            ),
            Self::UnsupportedMediaType => row(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The content type must be application/json",
                "The request has a body without `Content-Type: application/json`.",
                "Send JSON with this content type.",
            ),
            Self::UnsupportedContentEncoding => row(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body must not be compressed",
                "`Content-Encoding` names something other than `identity`.",
                "Send the body uncompressed.",
            ),
            Self::RequestTimeout => row(
                StatusCode::REQUEST_TIMEOUT,
                "The body did not arrive in time",
                "The headers arrived, but the whole body did not arrive before the deadline.",
                "Send the request again over a better connection.",
            ),
            Self::UriTooLong => row(
                StatusCode::URI_TOO_LONG,
                "The request target is too long",
                "Path and query together have more bytes than any request to this API needs.",
                "Shorten the query.",
            ),
            Self::HttpVersionNotSupported => row(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "This server speaks HTTP/1.1",
                "The request uses another version of HTTP.",
                "Use HTTP/1.1, or a proxy that does.",
            ),
            Self::RateLimited => row(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests",
                "The caller, or the caller's address, sends more requests than the rate limit allows. `RateLimit` shows the caller what is left.",
                "Retry after `Retry-After` seconds.",
            ),
            Self::TooManyStreams => row(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many streams are open",
                "You, or all callers together, have reached the limit of open status streams.",
                "Close a stream, or poll `GET /returns/{id}` with `If-None-Match` in the meantime.",
            ),
            Self::TooManyExports => row(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many exports are in progress",
                "You, or all callers together, have reached the limit of exports in progress.",
                "Retry after `Retry-After` seconds, or read pages.",
            ),
            Self::InvalidFields => row(
                StatusCode::UNPROCESSABLE_ENTITY,
                "The request has invalid fields",
                "A field of the body or a parameter of the query is missing, unknown, given twice, of the wrong type or out of bounds. `errors` names each, a field by its JSON `pointer`, a `parameter` by its name.",
                "Correct the named fields.",
            ),
            Self::NotEligible => row(
                StatusCode::UNPROCESSABLE_ENTITY,
                "The order cannot be returned",
                "The shop's rules do not allow it. `violations` lists every reason.",
                "Nothing, unless the order changes. `GET /orders` shows the reasons in advance.",
            ),
            Self::KeyReused => row(
                StatusCode::UNPROCESSABLE_ENTITY,
                "This Idempotency-Key was used with another body",
                "Within the last 24 hours the same key was used for a different request.",
                "Use a new key for a new request.",
            ),
            Self::PreconditionRequired => row(
                StatusCode::PRECONDITION_REQUIRED,
                "If-Match is required",
                "The request decides about a return without `If-Match`, so the decision might rest on an old state.",
                "Read the return and send its `ETag` as `If-Match`.",
            ),
            Self::Busy => row(
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many filings are waiting",
                "The queue of filings is full. Nothing was written.",
                "Retry after `Retry-After` seconds.",
            ),
            Self::BacklogFull => row(
                StatusCode::SERVICE_UNAVAILABLE,
                "New returns are not accepted now",
                "Too many events wait to be published, or it is not known how many. Nothing was written. Reading still works.",
                "Retry after `Retry-After` seconds.",
            ),
            Self::Undecided => row(
                StatusCode::SERVICE_UNAVAILABLE,
                "Your permissions could not be checked in time",
                "The server is too busy to evaluate the token. Nothing was done.",
                "Retry after `Retry-After` seconds.",
            ),
            Self::RevocationsUnknown => row(
                StatusCode::SERVICE_UNAVAILABLE,
                "It is not known now whether your token was revoked",
                "The list of revoked tokens could not be read for a while. Nothing was done.",
                "Retry after `Retry-After` seconds.",
            ),
            Self::Unavailable => row(
                StatusCode::SERVICE_UNAVAILABLE,
                "The service is unavailable",
                "The database does not respond, or the request took too long.",
                "Retry after `Retry-After` seconds: a filing with the same `Idempotency-Key`, a decision with the same `If-Match`.",
            ),
            Self::OutcomeUnknown => row(
                StatusCode::SERVICE_UNAVAILABLE,
                "It is not known whether the request was carried out",
                "The connection to the database was lost during the write. The change may or may not have been written.",
                "Send a filing again with the same `Idempotency-Key`. After a decision read the return: if its `ETag` is still the one that you sent, send the decision again with the same `If-Match`; if it differs, `status` and the event of the next version show what was carried out. Neither request is applied twice. 412 only means that something has changed since, by this request or by another.",
            ),
            Self::BrokenTrail => row(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The audit trail is broken",
                "Events of a return are missing in the database, so nothing is shown as if it were the whole trail.",
                "Report it to the operators: rows were deleted, and a backup has them.",
            ),
            Self::Internal => row(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Internal error",
                "A defect of the service. The operators find it in the log by the `request_id`.",
                "Report the `request_id` to the operators.",
            ),
        }
    }

    /// Every kind of error once, by status.
    pub(crate) fn catalogue() -> Vec<Entry> {
        let mut entries: Vec<Entry> = Self::iter().map(Self::entry).collect();
        entries.sort_by_key(|entry| entry.status);
        entries.dedup();
        entries
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write;

    use super::*;
    use crate::docs_copy;

    const PAGE_HEAD: &str = "\
# Errors of the API

Generated from `api/src/http/errors/catalogue.rs`; do not edit. Every error is `application/problem+json` (RFC 9457). Its `type`
is `/problems/` and the name below, and the API explains each at that address. Operators find a request by its `request_id`.
A request that is not valid HTTP gets 400 or 431 without a body.
";

    /// The catalogue as `docs/ERRORS.md`.
    fn page() -> String {
        let mut page = String::from(PAGE_HEAD);
        for entry in ErrorKind::catalogue() {
            let _ = write!(
                page,
                "\n## {} `{}`\n\n{}.\n\n**When:** {}\n\n**What to do:** {}\n",
                entry.status.as_u16(),
                entry.code,
                entry.title,
                entry.when,
                entry.advice
            );
        }
        page
    }

    #[test]
    fn the_page_in_docs_is_the_catalogue() {
        docs_copy::assert_equal("ERRORS.md", page().as_bytes());
    }

    #[test]
    fn a_code_names_one_kind() {
        let codes: Vec<&str> = ErrorKind::catalogue()
            .iter()
            .map(|entry| entry.code)
            .collect();
        let distinct: HashSet<&str> = codes.iter().copied().collect();
        assert_eq!(codes.len(), distinct.len(), "{codes:?}");
        for code in codes {
            assert!(
                code.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
                "{code}"
            );
        }
    }
}
