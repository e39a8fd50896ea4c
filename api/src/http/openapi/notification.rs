//! The one operation that is signed instead of authenticated by a token.

use serde_json::json;
use shared::domain::refund::notification::Notification;
use utoipa::openapi::Required;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::security::SecurityRequirement;

use super::parts::{self, Described, body, header_parameter, operation, request_id, string};
use crate::error::ErrorKind;
use crate::http::routes::Endpoint;

pub(super) fn notify() -> Described {
    let signature = string()
        .pattern(Some("^t=[0-9]+,v1=[0-9a-f]{64}"))
        .examples([json!(format!("t=1795441253,v1={}", "0".repeat(64)))]);
    let operation = operation(
        "notifyAboutRefund",
        "gateway",
        "Report that something has happened to a refund",
        "For the payment provider. The refund is looked up soon; nothing else follows from a notification. Without GATEWAY_NOTIFICATION_SECRET the path does not exist.",
    )
    .securities(Some(Vec::<SecurityRequirement>::new()))
    .parameter(header_parameter(
        "Gateway-Signature",
        Required::True,
        signature,
        "`t=` Unix seconds, at most 300 s from this server's time, and `v1=` HMAC-SHA256 of these seconds, a dot and the body, in hexadecimal.",
    ))
    .request_body(Some(body::<Notification>(Required::True)))
    .response(
        "202",
        ResponseBuilder::new()
            .description("Accepted, also if the refund is not known.")
            .header("X-Request-Id", request_id()),
    );
    Described::new(
        Endpoint::GatewayNotification,
        parts::with_errors_of_all(
            operation,
            &[
                ErrorKind::NotFound,
                ErrorKind::BodyTooLarge,
                ErrorKind::UnsupportedMediaType,
                ErrorKind::UnsupportedContentEncoding,
                ErrorKind::RequestTimeout,
                ErrorKind::InvalidFields,
            ],
        ),
    )
}
