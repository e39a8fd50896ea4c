//! `POST /returns/{id}/cancel`, `/approve`, `/reject` and `/retry-refund`: decisions about a return, by its `ETag`.
//!
//! The checks have a fixed order: 404, 428 without `If-Match`, errors of the body, 412 for another version, 409 if the
//! status does not allow it.

use std::sync::Arc;

use utoipa::ToSchema;
use warp::http::{HeaderMap, header};
use warp::reply::Response;

use super::show_return::shown;
use crate::decisions::{Decision, Verb};
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::etag::Tags;
use crate::http::json::{self, Fields};

/// The optional body of a decision.
#[derive(Debug, Default, ToSchema)]
#[schema(as = Decision)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Body {
    /// A code of the shop that explains the decision: 1 to 32 of a-z, 0-9 and _. Kept in the audit trail.
    #[schema(
        pattern = "^[a-z0-9_]{1,32}$",
        min_length = 1,
        max_length = 32,
        example = "customer_kept_it"
    )]
    reason_code: Option<String>,
}

pub(super) async fn handle(call: Call, id: &str, verb: Verb) -> Result<Response, ApiError> {
    let credential = call.authenticate()?;
    let (caller, row) = call
        .state
        .find_return(&credential, verb.operation(), id)
        .await?;
    let if_match = Tags::of(&call.headers, &header::IF_MATCH)?;
    let versions = if_match.ok_or(ApiError::PreconditionRequired)?.versions();
    let (state, cause) = (Arc::clone(&call.state), call.cause(caller));
    let body = call
        .body
        .read(&call.headers, &call.context, state.body_timeout);
    let body = parse(&call.headers, &body.await?)?;
    let decision = Decision {
        return_id: row.id,
        verb,
        versions,
        reason_code: body.reason_code,
        cause,
    };
    Ok(shown(state.decisions.apply(decision).await?))
}

/// No body means an empty object.
fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Body, ApiError> {
    if body.is_empty() {
        return Ok(Body::default());
    }
    json::require(headers)?;
    let mut fields = Fields::parse(body)?;
    let read = Body {
        reason_code: fields.code("reason_code"),
    };
    fields.finish()?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    #[test]
    fn a_body_is_optional_and_strict() {
        let mut headers = HeaderMap::new();
        assert!(parse(&headers, b"").is_ok());
        assert_eq!(
            parse(&headers, b"{}").map(|_| ()),
            Err(ApiError::UnsupportedMediaType)
        );
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        assert!(parse(&headers, b"{}").is_ok());
        let body = parse(&headers, br#"{"reason_code": "kept_it"}"#).expect("good");
        assert_eq!(body.reason_code.as_deref(), Some("kept_it"));
        for bad in [
            &b"[]"[..],
            br#"{"reason_code": "Kept it"}"#,
            br#"{"note": "x"}"#,
        ] {
            let refused = parse(&headers, bad).map(|_| ());
            assert!(
                matches!(refused, Err(ApiError::InvalidFields(_))),
                "{bad:?}"
            );
        }
    }
}
