//! The table of all paths, and the way from a request to its endpoint.

mod decide_return;
mod export;
mod file_return;
mod gateway_notification;
mod list_events;
mod list_operator_actions;
mod list_orders;
mod list_returns;
mod pages;
mod return_events;
mod show_return;
mod stream_return;

use std::convert::Infallible;

use warp::http::Method;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::call::{Call, State, call};
use crate::decisions::Verb;
use crate::error::ApiError;

pub(super) use self::decide_return::Body as DecisionBody;
pub(super) use self::file_return::Body as FilingBody;
pub(super) use self::list_events::Parameters as ListEventsParameters;
pub(super) use self::list_operator_actions::Parameters as ListOperatorActionsParameters;
pub(super) use self::list_orders::Parameters as ListOrdersParameters;
pub(super) use self::list_returns::Parameters as ListReturnsParameters;
pub(super) use self::return_events::Parameters as ReturnEventsParameters;

/// An operation of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    FileReturn,
    ListReturns,
    ShowReturn,
    StreamReturn,
    ReturnEvents,
    Decide(Verb),
    ListEvents,
    ListOperatorActions,
    ListOrders,
    GatewayNotification,
    Page(Page),
}

/// A public page, which needs no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Contract,
    Docs,
    DocsFile,
    Problem,
}

/// A path and its methods.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// As in the OpenAPI document. Also a metric label, so its cardinality is bounded.
    pub(super) template: &'static str,
    get: Option<Endpoint>,
    post: Option<Endpoint>,
}

static PATHS: [Path; 16] = [
    Path {
        template: "/returns",
        get: Some(Endpoint::ListReturns),
        post: Some(Endpoint::FileReturn),
    },
    get("/returns/{id}", Endpoint::ShowReturn),
    post("/returns/{id}/cancel", Endpoint::Decide(Verb::Cancel)),
    post("/returns/{id}/approve", Endpoint::Decide(Verb::Approve)),
    post("/returns/{id}/reject", Endpoint::Decide(Verb::Reject)),
    post(
        "/returns/{id}/retry-refund",
        Endpoint::Decide(Verb::RetryRefund),
    ),
    get("/returns/{id}/stream", Endpoint::StreamReturn),
    get("/returns/{id}/events", Endpoint::ReturnEvents),
    get("/events", Endpoint::ListEvents),
    get("/operator-actions", Endpoint::ListOperatorActions),
    get("/orders", Endpoint::ListOrders),
    post("/gateway/notifications", Endpoint::GatewayNotification),
    get("/openapi.json", Endpoint::Page(Page::Contract)),
    get("/docs", Endpoint::Page(Page::Docs)),
    get("/docs/{file}", Endpoint::Page(Page::DocsFile)),
    get("/problems/{slug}", Endpoint::Page(Page::Problem)),
];

const fn get(template: &'static str, endpoint: Endpoint) -> Path {
    Path {
        template,
        get: Some(endpoint),
        post: None,
    }
}

const fn post(template: &'static str, endpoint: Endpoint) -> Path {
    Path {
        template,
        get: None,
        post: Some(endpoint),
    }
}

impl Path {
    /// For the header `Allow`.
    pub(super) fn methods(&self) -> &'static str {
        match (self.get, self.post) {
            (Some(_), Some(_)) => "GET, HEAD, POST",
            (Some(_), None) => "GET, HEAD",
            (None, Some(_)) => "POST",
            (None, None) => "",
        }
    }

    /// HEAD is GET (RFC 9110, 9.3.2): the server sends the same headers and leaves out the body.
    fn endpoint(&self, method: &Method) -> Option<Endpoint> {
        match *method {
            Method::GET | Method::HEAD => self.get,
            Method::POST => self.post,
            _ => None,
        }
    }

    /// The parameter of a path that has this template; empty for a template without one.
    fn parameter<'p>(&self, path: &'p str) -> Option<&'p str> {
        let mut segments = path.split('/');
        let mut parameter = "";
        for part in self.template.split('/').skip(1) {
            let segment = segments.next()?;
            if part.starts_with('{') && !segment.is_empty() {
                parameter = segment;
            } else if part != segment {
                return None;
            }
        }
        segments.next().is_none().then_some(parameter)
    }
}

/// The path in the table, and its parameter. One slash at the end is ignored.
pub(super) fn find(path: &str) -> Option<(&'static Path, &str)> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    PATHS
        .iter()
        .find_map(|known| Some((known, known.parameter(path)?)))
}

/// The method and the template of an endpoint, for the OpenAPI document.
pub(super) fn location(endpoint: Endpoint) -> (Method, &'static str) {
    let mut methods = PATHS.iter().flat_map(|path| {
        [(Method::GET, path.get), (Method::POST, path.post)]
            .map(|(method, found)| (method, found, path.template))
    });
    let found = methods.find(|(_, found, _)| *found == Some(endpoint));
    let (method, _, template) = found.expect("each endpoint is in the table");
    (method, template)
}

/// All routes. Errors leave as responses that carry an [`ApiError`].
pub(super) fn routes(
    state: State,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    call(state)
        .then(|call| async move {
            let response = respond(call).await;
            response.unwrap_or_else(Reply::into_response)
        })
        .recover(|rejection: Rejection| async move {
            // The filters of `call` reject nothing that the server lets through.
            tracing::error!(?rejection, "a request was rejected for no known reason");
            Ok::<_, Infallible>(ApiError::Internal.into_response())
        })
        .unify()
}

async fn respond(call: Call) -> Result<Response, ApiError> {
    let path = call.path.as_str().to_owned();
    let (known, parameter) = find(&path).ok_or(ApiError::NotFound)?;
    let endpoint = known.endpoint(&call.method);
    match endpoint.ok_or(ApiError::MethodNotAllowed)? {
        Endpoint::FileReturn => file_return::handle(call).await,
        Endpoint::ListReturns => list_returns::handle(call).await,
        Endpoint::ShowReturn => show_return::handle(call, parameter).await,
        Endpoint::StreamReturn => stream_return::handle(call, parameter).await,
        Endpoint::ReturnEvents => return_events::handle(call, parameter).await,
        Endpoint::Decide(verb) => decide_return::handle(call, parameter, verb).await,
        Endpoint::ListEvents => list_events::handle(call).await,
        Endpoint::ListOperatorActions => list_operator_actions::handle(call).await,
        Endpoint::ListOrders => list_orders::handle(call).await,
        Endpoint::GatewayNotification => gateway_notification::handle(call).await,
        Endpoint::Page(page) => pages::page(page, parameter, &call.state.public_url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_by_its_template() {
        let found = |path| find(path).map(|(path, parameter)| (path.template, parameter));
        assert_eq!(found("/returns"), Some(("/returns", "")));
        assert_eq!(found("/returns/"), Some(("/returns", "")));
        assert_eq!(found("/returns/5"), Some(("/returns/{id}", "5")));
        assert_eq!(
            found("/returns/5/retry-refund"),
            Some(("/returns/{id}/retry-refund", "5"))
        );
        for unknown in [
            "/",
            "//returns",
            "/returns//",
            "/return",
            "/returns//events",
            "/returns/5/pay",
            "/returns/5/cancel/now",
        ] {
            assert_eq!(found(unknown), None, "{unknown}");
        }
    }
}
