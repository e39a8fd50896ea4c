//! `POST /gateway/notifications`: the payment provider reports that something has happened to a refund.
//!
//! No token: the signature of the body says who sent it. Every signed notification gets 202, so that nobody can find out
//! which references exist.

use std::sync::Arc;

use shared::domain::refund::notification::{Notification, SIGNATURE_HEADER};
use warp::Reply;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::json::{self, Fields};

pub(super) async fn handle(call: Call) -> Result<Response, ApiError> {
    let state = Arc::clone(&call.state);
    let notifications = state.notifications.as_ref().ok_or(ApiError::NotFound)?;
    json::require(&call.headers)?;
    let signature = call.headers.get(SIGNATURE_HEADER);
    let signature = signature.and_then(|value| value.to_str().ok());
    let signature = signature.unwrap_or_default().to_owned();
    let body = call
        .body
        .read(&call.headers, &call.context, state.body_timeout)
        .await?;
    let verified = notifications.verify(&signature, &body);
    verified.map_err(|bad| ApiError::BadRequest(bad.to_string()))?;
    let mut fields = Fields::parse(&body)?;
    let notification = Notification {
        gateway: fields.required_text("gateway"),
        reference: fields.required_text("reference"),
    };
    fields.finish_open()?;
    notifications.make_due(notification).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}
