//! `GET /returns/{id}`: one return, for its owner or an admin.

use shared::auth::Operation;
use warp::Reply;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::etag::{Tags, etag};
use crate::http::views::ReturnView;
use crate::store::ReturnRow;

pub(super) async fn handle(call: Call, id: &str) -> Result<Response, ApiError> {
    let credential = call.authenticate()?;
    let operation = Operation::ReturnsRead;
    let (_, row) = call.state.find_return(&credential, operation, id).await?;
    // An unreadable condition is ignored: it could only have saved the bytes of the response.
    let known = Tags::of(&call.headers, &header::IF_NONE_MATCH)
        .ok()
        .flatten();
    if known.is_some_and(|tags| tags.match_weakly(row.version)) {
        let unchanged = StatusCode::NOT_MODIFIED.into_response();
        Ok(tagged(unchanged, row.version))
    } else {
        Ok(shown(row))
    }
}

/// A return with its `ETag`.
pub(super) fn shown(row: ReturnRow) -> Response {
    let version = row.version;
    let shown = warp::reply::json(&ReturnView::from(row)).into_response();
    tagged(shown, version)
}

fn tagged(mut response: Response, version: i32) -> Response {
    let etag = HeaderValue::from_str(&etag(version)).expect("digits and quotes are visible ASCII");
    response.headers_mut().insert(header::ETAG, etag);
    response
}
