//! Every method and path on one screen; the filters they share below.

pub(crate) mod decide_return;
pub(crate) mod list_events;
pub(crate) mod list_orders;
pub(crate) mod list_returns;
mod pages;
pub(crate) mod post_return;
pub(crate) mod return_events;
pub(crate) mod show_return;
mod stream_return;

mod accept;
mod export;
mod json;
mod one_return;
pub(crate) mod paths;
pub(crate) mod query;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use shared::domain::eligibility::PolicyArgs;
use shared::domain::event::TopicArgs;
use warp::filters::BoxedFilter;
use warp::http::HeaderMap;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use crate::auth::{Authenticator, Credential};
use crate::body::body;
use crate::decision::Verb;
use crate::error::ApiError;
use crate::filing::FilingDesk;
use crate::lane::Lane;
use crate::rate::RateLimit;
use crate::server::RequestContext;
use crate::trail::Trail;
use crate::watching::Watching;

/// What handlers work with.
#[derive(Debug, Clone)]
pub struct State {
    pub reads: Lane,
    /// Each may wait for a lock.
    pub decisions: Lane,
    pub authenticator: Arc<Authenticator>,
    pub desk: FilingDesk,
    pub topics: TopicArgs,
    pub policy: PolicyArgs,
    pub trail: Trail,
    /// By user: whoever holds several tokens is one caller. `None`: no limit.
    pub callers: Option<Arc<RateLimit<i64>>>,
    /// How long a client may take to send a body that is asked for.
    pub body_timeout: Duration,
    pub watching: Watching,
}

/// All routes, the busiest first. Errors leave as responses that carry an [`ApiError`]; nothing is rejected to the outside.
pub fn routes(
    state: &State,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static + use<>
{
    post_return(state)
        .or(show_return(state))
        .unify()
        .or(list_returns(state))
        .unify()
        .or(list_orders(state))
        .unify()
        .or(decide_return(state))
        .unify()
        .or(stream_return(state))
        .unify()
        .or(return_events(state))
        .unify()
        .or(list_events(state))
        .unify()
        .or(pages::routes())
        .unify()
        .recover(no_route)
        .unify()
}

fn post_return(state: &State) -> BoxedFilter<(Response,)> {
    warp::path!("returns")
        .and(warp::post())
        .and(authenticated(state))
        .and(warp::header::headers_cloned())
        .and(context())
        .and(body(state.body_timeout))
        .and(with(state.desk.clone()))
        .then(post_return::handle)
        .map(Reply::into_response)
        .boxed()
}

fn show_return(state: &State) -> BoxedFilter<(Response,)> {
    warp::path!("returns" / String)
        .and(warp::get())
        .and(authenticated(state))
        .and(warp::header::headers_cloned())
        .and(with(state.reads.clone()))
        .then(show_return::handle)
        .map(Reply::into_response)
        .boxed()
}

fn list_returns(state: &State) -> BoxedFilter<(Response,)> {
    warp::path!("returns")
        .and(warp::get())
        .and(authenticated(state))
        .and(raw_query())
        .and(with(state.reads.clone()))
        .then(list_returns::handle)
        .map(Reply::into_response)
        .boxed()
}

fn list_orders(state: &State) -> BoxedFilter<(Response,)> {
    warp::path!("orders")
        .and(warp::get())
        .and(authenticated(state))
        .and(raw_query())
        .and(with(state.policy.clone()))
        .and(with(state.reads.clone()))
        .then(list_orders::handle)
        .map(Reply::into_response)
        .boxed()
}

fn decide_return(state: &State) -> BoxedFilter<(Response,)> {
    warp::path!("returns" / String / Verb)
        .and(warp::post())
        .and(authenticated(state))
        .and(warp::header::headers_cloned())
        .and(context())
        .and(body(state.body_timeout))
        .and(with(state.topics.clone()))
        .and(with(state.reads.clone()))
        .and(with(state.decisions.clone()))
        .then(decide_return::handle)
        .map(Reply::into_response)
        .boxed()
}

fn stream_return(state: &State) -> BoxedFilter<(Response,)> {
    warp::path!("returns" / String / "stream")
        .and(warp::get())
        .and(authenticated(state))
        .and(warp::header::headers_cloned())
        .and(raw_query())
        .and(with(state.reads.clone()))
        .and(with(state.watching.clone()))
        .then(stream_return::handle)
        .map(Reply::into_response)
        .boxed()
}

fn return_events(state: &State) -> BoxedFilter<(Response,)> {
    warp::path!("returns" / String / "events")
        .and(warp::get())
        .and(authenticated(state))
        .and(warp::header::headers_cloned())
        .and(raw_query())
        .and(with(state.trail.clone()))
        .then(return_events::handle)
        .map(Reply::into_response)
        .boxed()
}

fn list_events(state: &State) -> BoxedFilter<(Response,)> {
    warp::path!("events")
        .and(warp::get())
        .and(authenticated(state))
        .and(warp::header::headers_cloned())
        .and(raw_query())
        .and(with(state.trail.clone()))
        .then(list_events::handle)
        .map(Reply::into_response)
        .boxed()
}

/// Whoever was let in and has not asked too often, or why not. A `Result`, not a rejection: rejections are retried on every
/// `or` branch.
fn authenticated(
    state: &State,
) -> impl Filter<Extract = (Result<Credential, ApiError>,), Error = Rejection> + Clone + use<> {
    let (authenticator, callers) = (Arc::clone(&state.authenticator), state.callers.clone());
    warp::header::headers_cloned().and(context()).map(
        move |headers: HeaderMap, context: RequestContext| {
            let credential = authenticator.authenticate(&headers, &context.request_id)?;
            if let Some(callers) = &callers {
                let standing = callers.take(&credential.user());
                context.progress.known_caller(standing);
                standing.admit()?;
            }
            Ok(credential)
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

/// What no route took: routing is the only thing that warp rejects here.
async fn no_route(rejection: Rejection) -> Result<Response, Infallible> {
    let error = if rejection.is_not_found() {
        ApiError::NotFound
    } else if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        ApiError::MethodNotAllowed
    } else {
        // Nothing else is left to a rejection.
        tracing::error!(?rejection, "a request was rejected for no known reason");
        ApiError::Internal
    };
    Ok(error.into_response())
}
