//! Every kind of error that the api answers with: the one table of status, name, title and advice.
//!
//! `docs/ERRORS.md`, `/problems/{slug}` and the error responses of `openapi.json` are made from it.

use std::fmt::Write;

use strum::IntoEnumIterator;
use warp::http::StatusCode;

use super::ProblemType;

/// What stays the same for every error of one kind (RFC 9457, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub status: StatusCode,
    /// The stable name: the last part of the problem's `type`, and a metric label.
    pub slug: &'static str,
    pub title: &'static str,
    /// When it is answered.
    pub when: &'static str,
    /// What the client can do about it.
    pub advice: &'static str,
}

impl Entry {
    /// Whether the same request may succeed a little later.
    pub fn has_retry_after(&self) -> bool {
        matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        )
    }
}

impl ProblemType {
    /// The one error-to-HTTP table.
    pub fn entry(self) -> Entry {
        let row = |status, slug, title, when, advice| Entry {
            status,
            slug,
            title,
            when,
            advice,
        };
        match self {
            Self::BadRequest => row(
                StatusCode::BAD_REQUEST,
                "bad-request",
                "The request cannot be understood",
                "A body is not valid JSON, a query has unknown or repeated parameters, or a header cannot be read. `detail` says which.",
                "Correct the request; the same one will be refused again.",
            ),
            Self::UnknownOrder => row(
                StatusCode::BAD_REQUEST,
                "unknown-order",
                "No order of yours has this id",
                "The order does not exist or is somebody else's: the two are not told apart.",
                "Take the id from `GET /orders`.",
            ),
            Self::Unauthenticated | Self::InvalidToken => row(
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "A valid bearer token is required",
                "There is no token, or it is malformed, expired, revoked, for somebody else, or signed by an unknown key: which, only the operators' log tells.",
                "Get a new token and send it as `Authorization: Bearer`.",
            ),
            Self::Forbidden => row(
                StatusCode::FORBIDDEN,
                "forbidden",
                "Your token does not allow this",
                "The role, or what the token was narrowed to, does not allow the request; or it is about your own return and needs somebody else.",
                "Ask with another token, or ask somebody whose role it is.",
            ),
            Self::NotFound => row(
                StatusCode::NOT_FOUND,
                "not-found",
                "No such resource",
                "The path names nothing, or something of somebody else's: the two are not told apart.",
                "Check the id and whose token you use.",
            ),
            Self::MethodNotAllowed => row(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This resource does not support the method",
                "The path exists, but not with this method; `Allow` names those that it has.",
                "Look it up in `/openapi.json`.",
            ),
            Self::NotAcceptable => row(
                StatusCode::NOT_ACCEPTABLE,
                "not-acceptable",
                "None of the accepted media types is offered here",
                "`Accept` names nothing that this path can answer with.",
                "Leave `Accept` out for JSON, or name one of the types in `/openapi.json`.",
            ),
            Self::AlreadyOpen => row(
                StatusCode::CONFLICT,
                "already-open",
                "The order already has an open return",
                "Somebody filed a return for this order before and it has not ended; `return_id` names it.",
                "Follow that return, or cancel it first.",
            ),
            Self::InvalidTransition => row(
                StatusCode::CONFLICT,
                "invalid-transition",
                "The return's state does not allow this",
                "The return exists and `If-Match` was right, but from where it stands nothing leads there; `current_status` and `detail` say more.",
                "Read the return again and see what its status allows.",
            ),
            Self::PreconditionFailed => row(
                StatusCode::PRECONDITION_FAILED,
                "precondition-failed",
                "The return has changed since you read it",
                "`If-Match` does not name the return's present `ETag`.",
                "Read the return again, decide again, and send its new `ETag`.",
            ),
            Self::BodyTooLarge => row(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "The body is too large",
                "The body has more than 16 KiB.",
                "Send less: a reason has at most 1000 characters.",
            ),
            Self::UnsupportedMediaType => row(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The content type must be application/json",
                "A body came without `Content-Type: application/json`.",
                "Send JSON and say so.",
            ),
            Self::UnsupportedContentEncoding => row(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-content-encoding",
                "The body must not be compressed",
                "`Content-Encoding` names something other than `identity`.",
                "Send the body as it is.",
            ),
            Self::RequestTimeout => row(
                StatusCode::REQUEST_TIMEOUT,
                "request-timeout",
                "The body did not arrive in time",
                "The headers came, but not the whole body within the time that the server gives.",
                "Send it again over a better connection.",
            ),
            Self::UriTooLong => row(
                StatusCode::URI_TOO_LONG,
                "uri-too-long",
                "The request target is too long",
                "Path and query have more bytes than any request to this api needs.",
                "Shorten the query.",
            ),
            Self::HttpVersionNotSupported => row(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "http-version-not-supported",
                "This server speaks HTTP/1.1",
                "The request came in another version of HTTP.",
                "Use HTTP/1.1, or a proxy that does.",
            ),
            Self::RateLimited => row(
                StatusCode::TOO_MANY_REQUESTS,
                "rate-limited",
                "Too many requests",
                "The caller, or the address it comes from, asks more often than its rate allows; `RateLimit` tells callers where they stand.",
                "Ask again after `Retry-After` seconds.",
            ),
            Self::TooManyStreams => row(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-streams",
                "Too many streams are open",
                "You, or all callers together, have as many status streams open as this server keeps.",
                "Close one, or poll `GET /returns/{id}` with `If-None-Match` meanwhile.",
            ),
            Self::TooManyExports => row(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-exports",
                "Too many exports are under way",
                "You, or all callers together, have as many exports under way as this server keeps.",
                "Ask again after `Retry-After` seconds, or read pages.",
            ),
            Self::InvalidFields => row(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-fields",
                "The request has invalid fields",
                "A field of the body or a parameter of the query is missing, unknown, of the wrong type or out of bounds; `errors` names each.",
                "Correct the named fields.",
            ),
            Self::NotEligible => row(
                StatusCode::UNPROCESSABLE_ENTITY,
                "not-eligible",
                "The order cannot be returned",
                "The rules of the shop do not allow it; `violations` has every reason.",
                "Nothing, unless the order changes. `GET /orders` tells before one asks.",
            ),
            Self::KeyReused => row(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "This Idempotency-Key was used with another body",
                "Within the last 24 hours the same key came with another request.",
                "Use a new key for a new request.",
            ),
            Self::PreconditionRequired => row(
                StatusCode::PRECONDITION_REQUIRED,
                "precondition-required",
                "If-Match is required",
                "A decision about a return came without `If-Match`, so it might rest on an old state.",
                "Read the return and send its `ETag` as `If-Match`.",
            ),
            Self::Busy => row(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "Too many filings are waiting",
                "More filings wait for the database than the queue holds. Nothing was written.",
                "Ask again after `Retry-After` seconds.",
            ),
            Self::BacklogFull => row(
                StatusCode::SERVICE_UNAVAILABLE,
                "backlog-full",
                "New returns are not taken now",
                "Too many events wait to be published. Nothing was written; reading goes on.",
                "Ask again after `Retry-After` seconds.",
            ),
            Self::Undecided => row(
                StatusCode::SERVICE_UNAVAILABLE,
                "undecided",
                "Whether you may do this could not be decided in time",
                "The machine is too busy to judge the token. Nothing was done.",
                "Ask again after `Retry-After` seconds.",
            ),
            Self::RevocationsUnknown => row(
                StatusCode::SERVICE_UNAVAILABLE,
                "revocations-unknown",
                "Whether your token was revoked cannot be told now",
                "The list of revoked tokens could not be read for a while. Nothing was done.",
                "Ask again after `Retry-After` seconds.",
            ),
            Self::Unavailable => row(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "The service cannot answer now",
                "The database does not answer, or the request took too long.",
                "Ask again after `Retry-After` seconds; a filing with the same `Idempotency-Key`, a decision with the same `If-Match`.",
            ),
            Self::OutcomeUnknown => row(
                StatusCode::SERVICE_UNAVAILABLE,
                "outcome-unknown",
                "It is not known whether it was done",
                "The database was lost at the moment of writing: it may or may not have been done.",
                "Ask again: a filing with the same `Idempotency-Key`, a decision with the same `ETag` in `If-Match`: either is done once, and 412 then means that it was.",
            ),
            Self::Internal => row(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Internal error",
                "A defect of the service. The operators' log has it under the `request_id`.",
                "Tell the operators the `request_id`.",
            ),
        }
    }

    /// The catalogue as a page, `docs/ERRORS.md`.
    pub fn page() -> String {
        let mut page = String::from(PAGE_HEAD);
        for entry in Self::catalogue() {
            let _ = write!(
                page,
                "\n## {} `{}`\n\n{}.\n\n**When:** {}\n\n**What to do:** {}\n",
                entry.status.as_u16(),
                entry.slug,
                entry.title,
                entry.when,
                entry.advice
            );
        }
        page
    }

    /// Every kind of error once, by status.
    pub fn catalogue() -> Vec<Entry> {
        let mut entries: Vec<Entry> = Self::iter().map(Self::entry).collect();
        entries.sort_by_key(|entry| entry.status);
        entries.dedup();
        entries
    }
}

const PAGE_HEAD: &str = "\
# Errors of the API

Made from `api/src/error/catalogue.rs`; do not edit. Every error is `application/problem+json` (RFC 9457). Its `type` is
`/problems/` and the name below, and the api explains each at that address; `request_id` is what the operators find it by.
Only what cannot be read as HTTP (400, 431) is answered without a body.
";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::docs_copy;

    #[test]
    fn the_page_in_docs_is_the_catalogue() {
        docs_copy::assert_equal("ERRORS.md", ProblemType::page().as_bytes());
    }

    #[test]
    fn a_slug_names_one_kind() {
        let slugs: Vec<&str> = ProblemType::catalogue()
            .iter()
            .map(|entry| entry.slug)
            .collect();
        let distinct: HashSet<&str> = slugs.iter().copied().collect();
        assert_eq!(slugs.len(), distinct.len(), "{slugs:?}");
        for slug in slugs {
            assert!(
                slug.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
                "{slug}"
            );
        }
    }
}
