//! `POST /returns`: a customer files a return for an order, or an admin files it for a customer.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use shared::auth::{Operation, Request, Role};
use shared::domain::actor::Actor;
use shared::domain::ids::{CustomerId, OrderId, ReturnId};
use utoipa::ToSchema;
use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::error::ApiError;
use crate::filing::{FilingRequest, Receipt};
use crate::http::call::Call;
use crate::http::json::{self, Fields};
use crate::store::IdempotencyKey;

/// A new return. Unknown fields are refused, because a misspelled one would be ignored silently.
#[derive(Debug, ToSchema)]
#[cfg_attr(test, derive(serde::Serialize))]
#[schema(as = NewReturn)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Body {
    /// An order of the customer, as `GET /orders` lists it.
    #[schema(minimum = 1, example = 123)]
    order_id: i64,
    /// Only from an admin, who must name it: the customer for whom the return is filed. Not the admin's own number.
    #[schema(minimum = 1)]
    customer_id: Option<i64>,
    /// In the customer's words, stored as sent. It may have several lines; other control characters are refused.
    #[schema(
        max_length = 1000,
        pattern = r"^[^\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F]*$",
        example = "does not fit"
    )]
    reason: Option<String>,
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

/// The id of a return that is not filed yet; no return has it.
const NOT_FILED: ReturnId = ReturnId(0);

pub(super) async fn handle(call: Call) -> Result<Response, ApiError> {
    let credential = call.authenticate()?;
    // By the role, before the body is read; afterwards by what the body asks for.
    let by_role = match credential.role() {
        Role::Customer | Role::Auditor => for_oneself(),
        Role::Admin => for_customer(None),
    };
    let caller = credential.caller_for(&by_role)?;
    json::require(&call.headers)?;
    let (state, cause) = (Arc::clone(&call.state), call.cause(caller));
    let body = call
        .body
        .read(&call.headers, &call.context, state.body_timeout);
    let body = Body::read(&body.await?)?;
    let named = body.customer_id.map(CustomerId);
    credential.caller_for(&named.map_or_else(for_oneself, |id| for_customer(Some(id))))?;
    let request = FilingRequest {
        customer: named.unwrap_or(CustomerId(caller.user)),
        filed_by: named.map(|_| caller.user),
        order: OrderId(body.order_id),
        key: idempotency_key(&call.headers, &cause.actor, &body)?,
        reason: body.reason.unwrap_or_default(),
        reason_code: body.reason_code,
        cause,
    };
    let receipt = state.filing.file(request).await?;
    let location = format!("/returns/{}", receipt.return_id);
    Ok(created(receipt, &state.public_url.link(&location)))
}

fn for_oneself() -> Request {
    Request::of(Operation::ReturnsCreate)
}

fn for_customer(customer: Option<CustomerId>) -> Request {
    Request::about(Operation::ReturnsCreateFor, NOT_FILED, customer)
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

impl Body {
    /// # Errors
    /// Every field that is wrong.
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let read = Self {
            order_id: fields.required_id("order_id"),
            customer_id: fields.id("customer_id"),
            reason: fields.text("reason", reason_problems),
            reason_code: fields.code("reason_code"),
        };
        fields.finish()?;
        Ok(read)
    }

    /// SHA-256 over each field's length and bytes: the meaning of the request, without its white space. A customer's own
    /// filing has the three fields that it always had, so that a retry finds a response of an earlier version.
    fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let order = self.order_id.to_string();
        let customer = self.customer_id.map(|id| id.to_string());
        let own = [
            Some(order.as_str()),
            Some(self.reason.as_deref().unwrap_or_default()),
            self.reason_code.as_deref(),
        ];
        for field in own.into_iter().chain(customer.as_deref().map(Some)) {
            let len = field.map_or(u64::MAX, |text| text.len() as u64);
            hasher.update(len.to_be_bytes());
            hasher.update(field.unwrap_or_default());
        }
        hasher.finalize().into()
    }
}

/// A form sends line breaks and tabs, and may send nothing: a shop need not ask for a reason.
fn reason_problems(reason: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if reason.chars().count() > REASON_MAX_CHARS {
        problems.push(format!("must have at most {REASON_MAX_CHARS} characters"));
    }
    let refused = |c: char| c.is_control() && !['\n', '\r', '\t'].contains(&c);
    if reason.chars().any(refused) {
        problems
            .push("must not contain control characters other than line breaks and tabs".to_owned());
    }
    problems
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
    use serde_json::{Value, json};
    use utoipa::PartialSchema;

    use super::*;

    fn pointers(body: &str) -> Vec<String> {
        match Body::read(body.as_bytes()) {
            Err(ApiError::InvalidFields(errors)) => errors
                .into_iter()
                .filter_map(|error| error.pointer)
                .collect(),
            other => panic!("expected invalid fields, got {other:?}"),
        }
    }

    #[test]
    fn a_good_body_is_read() {
        let body = Body::read(br#"{"order_id": 123, "reason": "too small"}"#).expect("good");
        assert_eq!(
            (body.order_id, body.reason.as_deref()),
            (123, Some("too small"))
        );
        let longest = format!(r#"{{"order_id": 1, "reason": "{}"}}"#, "ü".repeat(1000));
        assert!(Body::read(longest.as_bytes()).is_ok());
        for none in [
            r#"{"order_id": 1}"#,
            r#"{"order_id": 1, "reason": null, "customer_id": null}"#,
        ] {
            let body = Body::read(none.as_bytes()).expect("good");
            assert_eq!((body.reason, body.customer_id), (None, None), "{none}");
        }
    }

    #[test]
    fn each_wrong_field_is_named() {
        for (body, named) in [
            (r#"{"order_id": 0, "reason": "x"}"#, &["#/order_id"][..]),
            (r#"{"order_id": null}"#, &["#/order_id"]),
            (r#"{"order_id": 1, "reason": "a\u0000b"}"#, &["#/reason"]),
            (r#"{"order_id": 1, "reason": "x", "ordr": 2}"#, &["#/ordr"]),
            (
                r#"{"order_id": 1, "reason_code": "Too Big"}"#,
                &["#/reason_code"],
            ),
            (r#"{"order_id": 1, "order_id": 1}"#, &["#/order_id"]),
            (
                r#"{"reason": ["x"], "customer_id": true}"#,
                &["#/order_id", "#/customer_id", "#/reason"],
            ),
        ] {
            assert_eq!(pointers(body), named, "{body}");
        }
        for no_object in [r#"[1, "x", null]"#, "null", "[]", "1"] {
            assert_eq!(pointers(no_object), ["#"], "{no_object}");
        }
        let long = format!(r#"{{"order_id": 1, "reason": "{}"}}"#, "ü".repeat(1001));
        assert_eq!(pointers(&long), ["#/reason"]);
    }

    #[test]
    fn what_is_not_json_is_a_bad_request() {
        for body in ["", "{", "[1", r#"{"order_id": 1, "reason": "x"} trailing"#] {
            assert!(
                matches!(Body::read(body.as_bytes()), Err(ApiError::BadRequest(_))),
                "{body}"
            );
        }
    }

    /// The body is read by hand, so nothing else keeps it and the contract together.
    #[test]
    fn the_fields_of_the_contract_are_those_that_are_read() {
        let schema = serde_json::to_value(Body::schema()).expect("JSON");
        let known = schema["properties"].as_object().expect("properties");
        let value = |name: &String| match name.as_str() {
            "order_id" | "customer_id" => json!(7),
            _ => json!("some_text"),
        };
        let all: Value = known
            .keys()
            .map(|name| (name.clone(), value(name)))
            .collect();
        let read = Body::read(all.to_string().as_bytes()).expect("each is known");
        assert_eq!(json!(read), all);
        assert_eq!(schema["required"], json!(["order_id"]));
    }

    #[test]
    fn the_fingerprint_follows_the_meaning() {
        let print = |body: &str| Body::read(body.as_bytes()).expect("good").fingerprint();
        let plain = print(r#"{"order_id":1,"reason":"x"}"#);
        assert_eq!(plain, print(r#"{ "reason": "x", "order_id": 1 }"#));
        for other in [
            r#"{"order_id":1,"reason":"x","reason_code":"size"}"#,
            r#"{"order_id":1,"reason":"x","customer_id":42}"#,
            r#"{"order_id":1}"#,
        ] {
            assert_ne!(plain, print(other), "{other}");
        }
        assert_eq!(
            print(r#"{"order_id":1}"#),
            print(r#"{"order_id":1,"reason":""}"#)
        );
    }
}
