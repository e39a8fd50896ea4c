//! Every method and path on one screen; the filters they share below.

mod list_returns;
mod post_return;
mod show_return;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use sqlx::mysql::MySqlPool;
use warp::http::HeaderMap;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use crate::auth::{Authenticator, Credential};
use crate::error::ApiError;
use crate::filing::FilingDesk;
use crate::server::RequestContext;

/// What handlers work with.
#[derive(Debug, Clone)]
pub struct State {
    pub pool: MySqlPool,
    pub authenticator: Arc<Authenticator>,
    pub desk: FilingDesk,
}

/// All routes. Errors leave as responses that carry an [`ApiError`]; nothing is rejected to the outside.
pub fn routes(
    state: State,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let post_return = warp::path!("returns")
        .and(warp::post())
        .and(authenticated(&state))
        .and(warp::header::headers_cloned())
        .and(context())
        .and(limited_body())
        .and(with(state.desk.clone()))
        .then(post_return::handle)
        .map(Reply::into_response)
        .boxed();
    let show_return = warp::path!("returns" / String)
        .and(warp::get())
        .and(authenticated(&state))
        .and(warp::header::optional("if-none-match"))
        .and(with(state.pool.clone()))
        .then(show_return::handle)
        .map(Reply::into_response)
        .boxed();
    let list_returns = warp::path!("returns")
        .and(warp::get())
        .and(authenticated(&state))
        .and(raw_query())
        .and(with(state.pool))
        .then(list_returns::handle)
        .map(Reply::into_response)
        .boxed();
    post_return
        .or(show_return)
        .unify()
        .or(list_returns)
        .unify()
        .recover(no_route)
        .unify()
}

/// Whoever was let in, or why not. A `Result`, not a rejection: rejections are retried on every `or` branch.
fn authenticated(
    state: &State,
) -> impl Filter<Extract = (Result<Credential, ApiError>,), Error = Rejection> + Clone + use<> {
    let authenticator = Arc::clone(&state.authenticator);
    warp::header::headers_cloned().and(context()).map(
        move |headers: HeaderMap, context: RequestContext| {
            authenticator.authenticate(&headers, &context.request_id)
        },
    )
}

fn with<T: Clone + Send>(value: T) -> impl Filter<Extract = (T,), Error = Infallible> + Clone {
    warp::any().map(move || value.clone())
}

fn context() -> impl Filter<Extract = (RequestContext,), Error = Rejection> + Copy {
    warp::ext::get::<RequestContext>()
}

/// The query string as sent; empty if there is none.
fn raw_query() -> impl Filter<Extract = (String,), Error = Infallible> + Clone {
    warp::query::raw().or(warp::any().map(String::new)).unify()
}

/// The largest body that any endpoint takes: a reason of 1000 characters, each escaped as JSON, fits.
const BODY_MAX: usize = 16 * 1024;

/// The body, read to its end but never past [`BODY_MAX`], whether or not its length was announced.
fn limited_body() -> impl Filter<Extract = (Result<Bytes, ApiError>,), Error = Rejection> + Copy {
    warp::body::stream().then(collect)
}

async fn collect<B: Buf>(
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Bytes, ApiError> {
    let mut stream = std::pin::pin!(stream);
    let mut body = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| ApiError::BadRequest("the body broke off".to_owned()))?;
        if body.len() + chunk.remaining() > BODY_MAX {
            return Err(ApiError::BodyTooLarge { limit: BODY_MAX });
        }
        body.extend_from_slice(&Bytes::copy_from_slice(chunk.chunk()));
    }
    Ok(body.freeze())
}

/// What no route took: routing is the only thing that warp rejects here.
async fn no_route(rejection: Rejection) -> Result<Response, Infallible> {
    let error = if rejection.is_not_found() {
        ApiError::NotFound
    } else if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        ApiError::MethodNotAllowed
    } else {
        // An unreadable header of ours, such as If-None-Match.
        ApiError::BadRequest("a header cannot be read".to_owned())
    };
    Ok(error.into_response())
}
