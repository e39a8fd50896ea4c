//! `POST /returns/{id}/cancel`, `/approve`, `/reject` and `/retry-refund`: decisions about a return, by its `ETag`.
//!
//! Refusals come in a fixed order: 404, 428 without `If-Match`, the body's own, 412 for another version, 409 where the
//! state does not allow it.

use serde::Deserialize;
use shared::domain::event::TopicArgs;
use shared::domain::transition::Cause;
use utoipa::ToSchema;
use warp::http::{HeaderMap, header};
use warp::reply::Response;

use super::show_return::shown;
use super::{json, one_return};
use crate::auth::Credential;
use crate::body::RequestBody;
use crate::decision::{self, Decision, Verb};
use crate::error::ApiError;
use crate::etag::Tags;
use crate::lane::Lane;
use crate::server::RequestContext;

/// The optional body of a decision.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = Decision)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body {
    /// A code of the shop's that explains it: 1 to 32 of a-z, 0-9 and _. Kept in the audit trail.
    #[schema(
        pattern = "^[a-z0-9_]{1,32}$",
        min_length = 1,
        max_length = 32,
        example = "customer_kept_it"
    )]
    reason_code: Option<String>,
}

#[expect(clippy::too_many_arguments, reason = "one per filter of the route")]
pub(super) async fn handle(
    id: String,
    verb: Verb,
    credential: Result<Credential, ApiError>,
    headers: HeaderMap,
    context: RequestContext,
    body: RequestBody,
    topics: TopicArgs,
    reads: Lane,
    decisions: Lane,
) -> Result<Response, ApiError> {
    let credential = credential?;
    let (caller, row) = one_return::find(&credential, verb.operation(), &id, &reads).await?;
    let if_match = Tags::of(&headers, &header::IF_MATCH)?.ok_or(ApiError::PreconditionRequired)?;
    let body = parse(&headers, &body.read().await?)?;
    let decision = Decision {
        return_id: row.id,
        verb,
        if_match,
        reason_code: body.reason_code,
        cause: Cause {
            actor: caller.actor(),
            request_id: Some(context.request_id),
            trace: context.trace,
        },
    };
    Ok(shown(
        decision::decide(&decisions, &reads, &topics, decision).await?,
    ))
}

/// No body at all is as good as an empty object.
fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Body, ApiError> {
    if body.is_empty() {
        return Ok(Body::default());
    }
    json::require(headers)?;
    let body: Body = json::parse(body)?;
    match json::code_problem(body.reason_code.as_deref()) {
        None => Ok(body),
        Some(problem) => Err(ApiError::InvalidFields(vec![problem])),
    }
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
