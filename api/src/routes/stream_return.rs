//! `GET /returns/{id}/stream`: a return's status as server-sent events, for its owner or an admin.

use shared::auth::{Operation, Request};
use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, header};
use warp::reply::Response;

use super::one_return;
use crate::auth::Credential;
use crate::error::ApiError;
use crate::lane::Lane;
use crate::watching::{Start, Watcher, Watching};

pub(super) async fn handle(
    id: String,
    credential: Result<Credential, ApiError>,
    headers: HeaderMap,
    query: String,
    reads: Lane,
    watching: Watching,
) -> Result<Response, ApiError> {
    if !query.is_empty() {
        // Said before anything else: addresses end up in logs, so whoever put a token there should know.
        return Err(ApiError::BadRequest(
            "no query is taken here; a token belongs in the Authorization header".to_owned(),
        ));
    }
    let credential = credential?;
    let last_seen = last_event_id(&headers)?;
    let operation = Operation::ReturnsRead;
    let (caller, row) = one_return::find(&credential, operation, &id, &reads).await?;
    let caller = caller.clone();
    let start = Start {
        version: row.version,
        is_final: !row.status.is_open(),
        last_seen,
    };
    let watcher = Watcher {
        credential,
        request: Request::about(operation, row.id, Some(row.customer_id)),
    };
    Ok(reply(watching.stream(row.id, start, &caller, watcher)?))
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

fn reply(
    body: impl futures_util::Stream<Item = Result<bytes::Bytes, std::convert::Infallible>>
    + Send
    + Sync
    + 'static,
) -> Response {
    let mut response = warp::reply::stream(body).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // nginx would hold the events back until a buffer is full.
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
