//! The public listener: what every request gets around its endpoint. An id, a rate limit, a deadline, a rendered error,
//! a log line, a metric.
//!
//! Must stay true: endpoints return errors as [`ApiError`], never as warp rejections; only `errors` renders them.

mod accept;
mod args;
mod body;
mod call;
mod client;
mod context;
mod cors;
mod errors;
mod etag;
mod json;
mod openapi;
mod public_url;
mod query;
mod rate_limit;
mod routes;
mod security_headers;
mod target;
mod views;

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use shared::runtime::http_server::{self, Drain, Limits, Peer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

pub(crate) use self::args::HttpArgs;
pub(crate) use self::call::State;
use self::client::{Client, ForwardedWarning, Proxies};
use self::context::{REQUEST_ID, RequestContext};
use self::cors::Cors;
pub(crate) use self::cors::problems as origin_problems;
pub(crate) use self::public_url::PublicUrl;
pub(crate) use self::rate_limit::RateLimit;
use crate::error::ApiError;
use crate::metrics::Metrics;

/// What happens before and after the routes.
struct Front {
    proxies: Proxies,
    forwarded_warning: ForwardedWarning,
    public_url: PublicUrl,
    address_rate: Option<RateLimit<IpAddr>>,
    cors: Cors,
    deadline: Duration,
    metrics: Arc<Metrics>,
}

/// Serves the public API until `stop`, then drains.
pub(crate) async fn serve(
    listener: TcpListener,
    state: State,
    args: HttpArgs,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Drain {
    let limits = Limits {
        max_connections: usize::try_from(args.api_max_connections).expect("bounded by the setting"),
        header_timeout: Duration::from_secs(args.api_header_timeout_secs),
        write_timeout: args.write_timeout(),
        drain: args.drain().saturating_sub(args.stop_delay()),
    };
    let connections = metrics.connections.clone();
    let front = Arc::new(Front {
        proxies: args.trusted_proxies.clone(),
        forwarded_warning: ForwardedWarning::default(),
        public_url: args.public_base_url.clone(),
        address_rate: RateLimit::per_second(args.rate_per_address),
        cors: Cors::new(&args.cors_allowed_origins),
        deadline: args.longest_request(),
        metrics,
    });
    let routes = warp::service(routes::routes(state));
    let service = service_fn(move |request: Request<Incoming>| {
        let (routes, front) = (routes.clone(), Arc::clone(&front));
        async move { Ok::<_, Infallible>(front.respond(routes, request).await) }
    });
    http_server::serve(listener, service, limits, connections, stop).await
}

impl Front {
    /// One request, from its headers to the response.
    async fn respond<S, B>(&self, routes: S, mut request: Request<B>) -> Response
    where
        S: Service<Request<B>, Response = Response, Error = Infallible>,
        B: Body,
    {
        let started = Instant::now();
        let client = self.client(&request);
        let (method, path) = (request.method().clone(), routes::find(request.uri().path()));
        let path = path.map(|(path, _)| path);
        let route = path.map_or("other", |path| path.template);
        let context = Arc::new(RequestContext::of(request.headers(), client, route));
        context.describe(&method, request.uri().path());
        let origin = request.headers().get(header::ORIGIN).cloned();
        let has_body = !request.body().is_end_stream();
        request.extensions_mut().insert(Arc::clone(&context));
        let target = target::check(&request);
        let is_ambiguous = target.is_err();
        let mut response = match self.admit(client, target, &request) {
            Ok(Some(preflight)) => preflight,
            Ok(None) => {
                let handled = handle(routes, request, self.deadline);
                let request_id = context.request_id();
                context.span.scope_of_request(request_id, handled).await
            }
            Err(error) => error.into_response(),
        };
        if let Some(error) = response.extensions_mut().remove::<ApiError>() {
            response = error.render(&context, &self.public_url);
        }
        let headers = response.headers_mut();
        if let Some(decision) = context.rate() {
            decision.write_headers(headers);
        }
        if is_ambiguous || (has_body && !context.is_body_read()) {
            close(headers);
        }
        if let Ok(value) = HeaderValue::from_str(context.request_id()) {
            headers.insert(&REQUEST_ID, value);
        }
        self.cors.open(origin.as_ref(), headers);
        security_headers::protect(headers);
        let status = response.status();
        if status == StatusCode::METHOD_NOT_ALLOWED {
            // Empty means none (RFC 9110, 10.2.1).
            let methods = HeaderValue::from_static(path.map_or("", |path| path.methods()));
            response.headers_mut().insert(header::ALLOW, methods);
        }
        self.metrics
            .request_duration
            .with_label_values(&[method_label(&method), route, status.as_str()])
            .observe(started.elapsed().as_secs_f64());
        context.end(status);
        tracing::debug!(http.method = %method, http.route = route, http.status = status.as_u16(), request.id = context.request_id(), "responded");
        response
    }

    /// Only in tests a request has no peer.
    fn client<B>(&self, request: &Request<B>) -> Option<Client> {
        let Peer(peer) = request.extensions().get()?;
        let client = self.proxies.client(peer.ip(), request.headers());
        self.forwarded_warning.check(client, request.headers());
        Some(client)
    }

    /// The checks before any endpoint. The rate limit comes first, so that a request above it costs nothing else.
    fn admit<B>(
        &self,
        client: Option<Client>,
        target: Result<(), ApiError>,
        request: &Request<B>,
    ) -> Result<Option<Response>, ApiError> {
        if let (Some(limit), Some(client)) = (&self.address_rate, client) {
            limit.take(&client::site(client.address)).admit()?;
        }
        target?;
        Ok(self.cors.preflight(request.method(), request.headers()))
    }
}

/// The response of the routes. A panic is one 500 and leaves the connection open.
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

/// After an ambiguous request, and after one whose body was not read: hyper closes the connection then. Without this header
/// the client would send its next request into a closed connection.
fn close(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
