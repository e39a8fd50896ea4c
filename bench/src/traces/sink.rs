//! A collector that takes every request and keeps nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use shared::runtime::http_server::{self, ConnectionMetrics, Limits};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

const LIMITS: Limits = Limits {
    max_connections: 64,
    header_timeout: Duration::from_secs(60),
    write_timeout: Duration::from_secs(60),
    drain: Duration::ZERO,
};

/// Dropping it closes its port.
pub(super) struct Sink {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Sink {
    /// On a free port, or again on the one it had.
    pub(super) async fn listen(address: Option<SocketAddr>) -> anyhow::Result<Self> {
        let address = address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let served = http_server::serve(
            listener,
            service_fn(|request| async { Ok::<_, Infallible>(take(request).await) }),
            LIMITS,
            ConnectionMetrics::default(),
            stop.clone(),
        );
        tokio::spawn(served);
        Ok(Self {
            address,
            _stop: stop.drop_guard(),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn take(mut request: Request<Incoming>) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    while let Some(frame) = request.body_mut().frame().await {
        if frame.is_err() {
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
    }
    response
}
