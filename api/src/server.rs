//! What every request gets around its handler: an id, a rate, a deadline, a rendered error, a log line, a metric.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use shared::domain::trace_context::TraceContext;
use shared::runtime::http_server::{self, Connections, Drain, Limits, Peer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use uuid::Uuid;
use warp::Reply;
use warp::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

use crate::answer_headers;
use crate::client::{self, Proxies};
use crate::config::HttpArgs;
use crate::cors::Cors;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::rate::{RateLimit, Standing};
use crate::routes::{self, State, paths};
use crate::target;

/// What a handler knows of its request besides the request.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The client's `X-Request-Id` if it is 1 to 64 visible ASCII characters, else ours.
    pub request_id: String,
    pub trace: TraceContext,
    pub(crate) progress: Arc<Progress>,
}

/// What the filters have done so far, for the answer's headers.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    standing: OnceLock<Standing>,
    body_read: AtomicBool,
}

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What stands before the routes.
struct Front {
    proxies: Proxies,
    sites: Option<RateLimit<IpAddr>>,
    cors: Cors,
    deadline: Duration,
    metrics: Arc<Metrics>,
}

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
        write_timeout: Duration::from_secs(cfg.api_write_timeout_secs),
        drain: cfg.drain().saturating_sub(cfg.stop_delay()),
    };
    let connections = Connections::shown_in(metrics.registry());
    let front = Arc::new(Front {
        proxies: cfg.trusted_proxies.clone(),
        sites: RateLimit::per_second(cfg.rate_per_address),
        cors: Cors::new(&cfg.cors_allowed_origins),
        deadline: cfg.longest_request(),
        metrics,
    });
    let routes = warp::service(routes::routes(&state));
    let service = service_fn(move |request: Request<Incoming>| {
        let (routes, front) = (routes.clone(), Arc::clone(&front));
        async move { Ok::<_, Infallible>(front.answer(routes, request).await) }
    });
    http_server::serve(listener, service, limits, connections, stop).await
}

impl Front {
    /// One request from headers to answer.
    async fn answer<S, B>(&self, routes: S, mut request: Request<B>) -> Response
    where
        S: Service<Request<B>, Response = Response, Error = Infallible>,
        B: Body,
    {
        let started = Instant::now();
        let context = context(request.headers());
        let client = self.client(&request);
        let (method, path) = (request.method().clone(), paths::find(request.uri().path()));
        let origin = request.headers().get(header::ORIGIN).cloned();
        let has_body = !request.body().is_end_stream();
        request.extensions_mut().insert(context.clone());
        let understood = target::check(&request);
        let last = understood.is_err();
        let mut response = match self.admit(client, understood, &request) {
            Ok(Some(preflight)) => preflight,
            Ok(None) => handle(routes, request, self.deadline).await,
            Err(error) => error.into_response(),
        };
        if let Some(error) = response.extensions_mut().remove::<ApiError>() {
            response = error.render(&context.request_id);
        }
        if let Some(standing) = context.progress.standing.get() {
            standing.tell(response.headers_mut());
        }
        if last || (has_body && !context.progress.body_read.load(Ordering::Relaxed)) {
            close(response.headers_mut());
        }
        if let Ok(value) = HeaderValue::from_str(&context.request_id) {
            response.headers_mut().insert(&REQUEST_ID, value);
        }
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            // Empty: none (RFC 9110, 10.2.1).
            let methods = path.map_or("", |path| path.methods);
            let methods = HeaderValue::from_static(methods);
            response.headers_mut().insert(header::ALLOW, methods);
        }
        self.cors.open(origin.as_ref(), response.headers_mut());
        answer_headers::protect(response.headers_mut());
        let status = response.status();
        let route = path.map_or("other", |path| path.template);
        self.metrics
            .request_duration
            .with_label_values(&[method_label(&method), route, status.as_str()])
            .observe(started.elapsed().as_secs_f64());
        tracing::debug!(http.method = %method, http.route = route, http.status = status.as_u16(), request.id = context.request_id, "answered");
        response
    }

    /// `None` only in tests that have no connection.
    fn client<B>(&self, request: &Request<B>) -> Option<IpAddr> {
        let Peer(peer) = request.extensions().get()?;
        Some(self.proxies.client(peer.ip(), request.headers()))
    }

    /// What is decided before any handler: the client's rate first, so that nothing else is done for one too many.
    fn admit<B>(
        &self,
        client: Option<IpAddr>,
        understood: Result<(), ApiError>,
        request: &Request<B>,
    ) -> Result<Option<Response>, ApiError> {
        if let (Some(sites), Some(client)) = (&self.sites, client) {
            sites.take(&client::site(client)).admit()?;
        }
        understood?;
        Ok(self.cors.preflight(request.method(), request.headers()))
    }
}

/// What the routes say; a panic of theirs is one 500 and leaves the connection open.
async fn handle<S, B>(mut routes: S, request: Request<B>, deadline: Duration) -> Response
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
{
    let handled = AssertUnwindSafe(async { routes.call(request).await }).catch_unwind();
    match tokio::time::timeout(deadline, handled).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Err(_)) => ApiError::Internal.into_response(),
        Err(_) => ApiError::Unavailable.into_response(),
    }
}

impl Progress {
    pub(crate) fn known_caller(&self, standing: Standing) {
        // A request has one caller: there is nothing to overwrite.
        let _ = self.standing.set(standing);
    }

    pub(crate) fn body_was_read(&self) {
        self.body_read.store(true, Ordering::Relaxed);
    }
}

/// After a request that means different things to different readers, and after one whose body was not read: hyper closes
/// then, and a client that is not told would send its next request into the close.
fn close(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
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
        progress: Arc::default(),
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
