//! What every request gets around its handler: an id, a deadline, a rendered error, a log line, a metric.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use shared::http_server::{self, Drain, Limits};
use shared::trace_context::TraceContext;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use uuid::Uuid;
use warp::Reply;
use warp::http::{HeaderMap, HeaderName, HeaderValue, Method};
use warp::reply::Response;

use crate::config::HttpArgs;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::routes::{self, State};

/// What a handler knows of its request besides the request.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The client's `X-Request-Id` if it is 1 to 64 visible ASCII characters, else ours.
    pub request_id: String,
    pub trace: TraceContext,
}

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Serves the public API until `stop`, then drains.
pub(crate) async fn serve(
    listener: TcpListener,
    state: State,
    cfg: &HttpArgs,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Drain {
    let limits = Limits {
        max_connections: usize::try_from(cfg.api_max_connections).expect("bounded by the setting"),
        header_timeout: Duration::from_secs(cfg.api_header_timeout_secs),
        drain: cfg.drain(),
    };
    // A handler answers by its own deadline and knows what to say; this one is for what hangs.
    let deadline = cfg.request_timeout() + Duration::from_secs(1);
    let routes = warp::service(routes::routes(state));
    let service = service_fn(move |request: Request<Incoming>| {
        let routes = routes.clone();
        let metrics = Arc::clone(&metrics);
        async move { Ok::<_, Infallible>(answer(routes, request, deadline, &metrics).await) }
    });
    http_server::serve(listener, service, limits, stop).await
}

/// One request from headers to answer.
async fn answer<S>(
    mut routes: S,
    mut request: Request<Incoming>,
    deadline: Duration,
    metrics: &Metrics,
) -> Response
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    let started = Instant::now();
    let context = context(request.headers());
    let request_id = context.request_id.clone();
    let (method, route) = (request.method().clone(), route(request.uri().path()));
    let mut response = if method == Method::CONNECT {
        // warp 0.4.3 can panic on its authority-form target.
        ApiError::MethodNotAllowed.into_response()
    } else {
        request.extensions_mut().insert(context);
        let handled = AssertUnwindSafe(routes.call(request)).catch_unwind();
        match tokio::time::timeout(deadline, handled).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Err(_)) => ApiError::Internal.into_response(),
            Err(_) => ApiError::Unavailable.into_response(),
        }
    };
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = error.render(&request_id);
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(&REQUEST_ID, value);
    }
    let status = response.status();
    metrics
        .request_duration
        .with_label_values(&[method_label(&method), route, status.as_str()])
        .observe(started.elapsed().as_secs_f64());
    tracing::debug!(http.method = %method, http.route = route, http.status = status.as_u16(), request.id = request_id, "answered");
    response
}

fn context(headers: &HeaderMap) -> RequestContext {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let given = headers
        .get(&REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
    RequestContext {
        request_id: given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned),
        trace: TraceContext::from_headers(text("traceparent"), text("tracestate")),
    }
}

/// A label of bounded cardinality: never the path itself.
fn route(path: &str) -> &'static str {
    let mut parts = path.trim_matches('/').split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("returns"), None, None) => "/returns",
        (Some("returns"), Some(_), None) => "/returns/{id}",
        _ => "other",
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        _ => "other",
    }
}
