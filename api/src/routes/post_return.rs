//! `POST /returns`: a customer files a return for an order.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use shared::actor::Actor;
use shared::auth::{Operation, Request};
use shared::ids::{CustomerId, OrderId};
use shared::transition::Cause;
use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::auth::Credential;
use crate::error::{ApiError, FieldError};
use crate::filing::{FilingDesk, FilingRequest, Receipt};
use crate::idempotency::IdempotencyKey;
use crate::server::RequestContext;

/// The request's body. Unknown fields are refused: a misspelt one would be dropped in silence.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    order_id: i64,
    reason: String,
    reason_code: Option<String>,
}

const REASON_MAX_CHARS: usize = 1000;
const REASON_CODE_MAX: usize = 32;
const IDEMPOTENCY_KEY: &str = "idempotency-key";

pub(super) async fn handle(
    credential: Result<Credential, ApiError>,
    headers: HeaderMap,
    context: RequestContext,
    body: Result<Bytes, ApiError>,
    desk: FilingDesk,
) -> Result<Response, ApiError> {
    let credential = credential?;
    let caller = credential.caller_for(&Request::of(Operation::ReturnsCreate))?;
    require_json(&headers)?;
    let body = parse(&body?)?;
    let actor = caller.actor();
    let request = FilingRequest {
        customer: CustomerId(caller.user),
        order: OrderId(body.order_id),
        key: idempotency_key(&headers, &actor, &body)?,
        reason: body.reason,
        reason_code: body.reason_code,
        cause: Cause {
            actor,
            request_id: Some(context.request_id),
            trace: context.trace,
        },
    };
    Ok(created(desk.file(request).await?))
}

fn created(receipt: Receipt) -> Response {
    let location = HeaderValue::from_str(&format!("/returns/{}", receipt.return_id))
        .expect("digits are visible ASCII");
    let mut response =
        warp::reply::with_status(Vec::from(receipt.body), StatusCode::CREATED).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// `application/json`, with or without parameters. A missing type is refused too.
fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    match media_type {
        Some(media_type) if media_type.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(ApiError::UnsupportedMediaType),
    }
}

fn parse(body: &[u8]) -> Result<Body, ApiError> {
    // serde would read a list of the fields' values as well.
    if body.trim_ascii_start().first() != Some(&b'{')
        && serde_json::from_slice::<IgnoredAny>(body).is_ok()
    {
        let problem = FieldError::new("", "the body must be a JSON object");
        return Err(ApiError::InvalidFields(vec![problem]));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed: Body = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        if cause.is_data() {
            let message = cause.to_string();
            ApiError::InvalidFields(vec![FieldError::new(&field(&path, &message), message)])
        } else {
            ApiError::BadRequest(format!("the body is not valid JSON: {cause}"))
        }
    })?;
    json.end()
        .map_err(|error| ApiError::BadRequest(format!("the body is not valid JSON: {error}")))?;
    let errors = parsed.problems();
    if errors.is_empty() {
        Ok(parsed)
    } else {
        Err(ApiError::InvalidFields(errors))
    }
}

/// The field that serde complains of: the path names one of the wrong type; of one that is missing or repeated, only
/// the message does, between back-quotes.
fn field(path: &str, message: &str) -> String {
    match message.split('`').nth(1) {
        Some(name) if path == "." => name.to_owned(),
        _ => path.to_owned(),
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
                "must not hold control characters",
            ));
        }
        if self
            .reason_code
            .as_deref()
            .is_some_and(|code| !is_code(code))
        {
            problems.push(FieldError::new(
                "reason_code",
                format!("must be 1 to {REASON_CODE_MAX} of a-z, 0-9 and _"),
            ));
        }
        problems
    }

    /// SHA-256 over each field's length and bytes: the meaning of the request, whatever its white space.
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

fn is_code(code: &str) -> bool {
    (1..=REASON_CODE_MAX).contains(&code.len())
        && code
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
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
