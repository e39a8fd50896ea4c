//! `GET /returns/{id}/stream`: a return's status as server-sent events, for its owner or an admin.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::Stream;
use shared::auth::{Operation, Request};
use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, header};
use warp::reply::Response;

use crate::error::ApiError;
use crate::http::call::Call;
use crate::streams::StreamStart;

pub(super) async fn handle(call: Call, id: &str) -> Result<Response, ApiError> {
    let credential = call.authenticate();
    if !call.query.is_empty() {
        // Before any other error: addresses end up in logs, so a client that put a token there must learn it.
        return Err(ApiError::BadRequest(
            "no query is accepted here; a token belongs in the Authorization header".to_owned(),
        ));
    }
    let credential = credential?;
    let last_seen = last_event_id(&call.headers)?;
    let operation = Operation::ReturnsRead;
    let (_, row) = call.state.find_return(&credential, operation, id).await?;
    let start = StreamStart {
        version: row.version,
        is_final: !row.status.is_open(),
        last_seen,
    };
    let request = Request::about(operation, row.id, Some(row.customer_id));
    let grant = credential.grant(request);
    let stream = call.state.streams.open(row.id, start, grant)?;
    Ok(response(stream))
}

/// `Last-Event-ID`, if there is one.
fn last_event_id(headers: &HeaderMap) -> Result<Option<i32>, ApiError> {
    let mut values = headers.get_all("last-event-id").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let digits = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match (digits.and_then(|text| text.parse().ok()), values.next()) {
        (Some(seq), None) => Ok(Some(seq)),
        (None, _) | (_, Some(_)) => Err(ApiError::BadRequest(
            "Last-Event-ID must be the id of an event of this stream".to_owned(),
        )),
    }
}

fn response(
    body: impl Stream<Item = Result<Bytes, Infallible>> + Send + Sync + 'static,
) -> Response {
    let mut response = warp::reply::stream(body).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Without it nginx delays the events until a buffer is full.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_id_is_one_number() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = HeaderValue::from_str(value).expect("visible ASCII");
                headers.append("last-event-id", value);
            }
            last_event_id(&headers).ok()
        };
        assert_eq!(read(&[]), Some(None));
        assert_eq!(read(&["0"]), Some(Some(0)));
        assert_eq!(read(&["17"]), Some(Some(17)));
        for bad in [
            &["-1"][..],
            &["+1"],
            &["1.0"],
            &[""],
            &["x"],
            &["99999999999"],
            &["1", "1"],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
