//! `POST /returns`: a customer files a return for an order.

use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use shared::auth::{Operation, Request};
use shared::domain::actor::Actor;
use shared::domain::ids::{CustomerId, OrderId};
use utoipa::ToSchema;
use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::error::{ApiError, FieldError};
use crate::filing::{FilingRequest, Receipt};
use crate::http::call::Call;
use crate::http::json;
use crate::store::IdempotencyKey;

/// A new return. Unknown fields are refused, because a misspelled one would be ignored silently.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewReturn)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Body {
    /// An order of the caller, as `GET /orders` lists it.
    #[schema(minimum = 1, example = 123)]
    order_id: i64,
    /// In the customer's words; no control characters.
    #[schema(
        min_length = 1,
        max_length = 1000,
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        example = "does not fit"
    )]
    reason: String,
    /// A code of the shop: 1 to 32 of a-z, 0-9 and _.
    #[schema(
        min_length = 1,
        max_length = 32,
        pattern = "^[a-z0-9_]{1,32}$",
        example = "too_small"
    )]
    reason_code: Option<String>,
}

const REASON_MAX_CHARS: usize = 1000;
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Marks a stored response.
const REPLAYED: &str = "idempotent-replayed";

pub(super) async fn handle(call: Call) -> Result<Response, ApiError> {
    let credential = call.authenticate()?;
    let caller = credential.caller_for(&Request::of(Operation::ReturnsCreate))?;
    json::require(&call.headers)?;
    let (state, cause) = (Arc::clone(&call.state), call.cause(caller));
    let body = call
        .body
        .read(&call.headers, &call.context, state.body_timeout);
    let body = parse(&body.await?)?;
    let request = FilingRequest {
        customer: CustomerId(caller.user),
        order: OrderId(body.order_id),
        key: idempotency_key(&call.headers, &cause.actor, &body)?,
        reason: body.reason,
        reason_code: body.reason_code,
        cause,
    };
    let receipt = state.filing.file(request).await?;
    let location = format!("/returns/{}", receipt.return_id);
    Ok(created(receipt, &state.public_url.link(&location)))
}

fn created(receipt: Receipt, location: &str) -> Response {
    let location = HeaderValue::from_str(location).expect("a URL is visible ASCII");
    let mut response =
        warp::reply::with_status(Vec::from(receipt.body), StatusCode::CREATED).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::LOCATION, location);
    if receipt.replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn parse(body: &[u8]) -> Result<Body, ApiError> {
    let parsed: Body = json::parse(body)?;
    let errors = parsed.problems();
    if errors.is_empty() {
        Ok(parsed)
    } else {
        Err(ApiError::InvalidFields(errors))
    }
}

impl Body {
    fn problems(&self) -> Vec<FieldError> {
        let mut problems = Vec::new();
        if self.order_id <= 0 {
            problems.push(FieldError::new("order_id", "must be a positive number"));
        }
        if self.reason.trim().is_empty() {
            problems.push(FieldError::new("reason", "must not be empty"));
        }
        if self.reason.chars().count() > REASON_MAX_CHARS {
            problems.push(FieldError::new(
                "reason",
                format!("must have at most {REASON_MAX_CHARS} characters"),
            ));
        }
        if self.reason.chars().any(char::is_control) {
            problems.push(FieldError::new(
                "reason",
                "must not contain control characters",
            ));
        }
        problems.extend(json::code_problem(self.reason_code.as_deref()));
        problems
    }

    /// SHA-256 over each field's length and bytes: the meaning of the request, without its white space.
    fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let order = self.order_id.to_string();
        for field in [
            Some(order.as_str()),
            Some(&self.reason),
            self.reason_code.as_deref(),
        ] {
            let len = field.map_or(u64::MAX, |text| text.len() as u64);
            hasher.update(len.to_be_bytes());
            hasher.update(field.unwrap_or_default());
        }
        hasher.finalize().into()
    }
}

/// The optional `Idempotency-Key`; more than one is refused.
fn idempotency_key(
    headers: &HeaderMap,
    actor: &Actor,
    body: &Body,
) -> Result<Option<IdempotencyKey>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ApiError::BadRequest(
            "more than one Idempotency-Key".to_owned(),
        ));
    }
    // Bytes outside ASCII are refused by the key's own rule.
    let key = String::from_utf8_lossy(value.as_bytes());
    IdempotencyKey::new(actor, &key, body.fingerprint()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Vec<String> {
        match parse(body.as_bytes()) {
            Err(ApiError::InvalidFields(errors)) => {
                errors.into_iter().map(|error| error.field).collect()
            }
            other => panic!("expected invalid fields, got {other:?}"),
        }
    }

    #[test]
    fn a_good_body_is_read() {
        let body = parse(br#"{"order_id": 123, "reason": "too small"}"#).expect("good");
        assert_eq!((body.order_id, body.reason.as_str()), (123, "too small"));
        let longest = format!(r#"{{"order_id": 1, "reason": "{}"}}"#, "ü".repeat(1000));
        assert!(parse(longest.as_bytes()).is_ok());
    }

    #[test]
    fn the_wrong_field_is_named() {
        assert_eq!(fields(r#"{"order_id": 0, "reason": "x"}"#), ["order_id"]);
        assert_eq!(fields(r#"{"order_id": 1, "reason": " "}"#), ["reason"]);
        assert_eq!(
            fields(r#"{"order_id": 1, "reason": "a\u0000b"}"#),
            ["reason"]
        );
        assert_eq!(fields(r#"{"order_id": "1", "reason": "x"}"#), ["order_id"]);
        assert_eq!(
            fields(r#"{"order_id": 1, "reason": "x", "ordr": 2}"#),
            ["ordr"]
        );
        assert_eq!(
            fields(r#"{"order_id": 1, "reason": "x", "reason_code": "Too Big"}"#),
            ["reason_code"]
        );
        assert_eq!(fields(r#"{"order_id": 1}"#), ["reason"]);
        assert_eq!(
            fields(r#"{"order_id": 1, "order_id": 1, "reason": "x"}"#),
            ["order_id"]
        );
        for no_object in [r#"[1, "x", null]"#, "null", "[]", "1"] {
            assert_eq!(fields(no_object), [""], "{no_object}");
        }
        let long = format!(r#"{{"order_id": 1, "reason": "{}"}}"#, "ü".repeat(1001));
        assert_eq!(fields(&long), ["reason"]);
    }

    #[test]
    fn what_is_not_json_is_a_bad_request() {
        for body in ["", "{", "[1", r#"{"order_id": 1, "reason": "x"} trailing"#] {
            assert!(
                matches!(parse(body.as_bytes()), Err(ApiError::BadRequest(_))),
                "{body}"
            );
        }
    }

    #[test]
    fn the_fingerprint_follows_the_meaning() {
        let print = |body: &str| parse(body.as_bytes()).expect("good").fingerprint();
        assert_eq!(
            print(r#"{"order_id":1,"reason":"x"}"#),
            print(r#"{ "reason": "x", "order_id": 1 }"#)
        );
        assert_ne!(
            print(r#"{"order_id":1,"reason":"x"}"#),
            print(r#"{"order_id":1,"reason":"x","reason_code":"size"}"#)
        );
    }
}
