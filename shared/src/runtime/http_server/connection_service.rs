//! The service of one connection: it marks requests as in flight, and adds the peer's address and a handle of the
//! connection.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use http_body_util::BodyExt;
use http_body_util::combinators::MapErr;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use hyper::service::Service;
use hyper::{Request, Response};
use tokio_util::sync::CancellationToken;

use super::connection_limit::Permit;

/// The other end of the connection, a client or a proxy. An extension of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The connection of a request. An extension of each request.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    aborted: CancellationToken,
}

impl Connection {
    /// Closes the connection at once, also in the middle of a response that the client does not read: hyper asks the body
    /// for more, and sees its error, only when the client has read what came before. The client sees that the response
    /// is incomplete.
    pub fn abort(&self) {
        self.aborted.cancel();
    }

    pub(super) fn aborted(&self) -> CancellationToken {
        self.aborted.clone()
    }
}

/// Wraps the service of the listener for one connection.
#[derive(Debug)]
pub(super) struct ConnectionService<S> {
    service: S,
    peer: SocketAddr,
    connection: Connection,
    permit: Arc<Permit>,
}

impl<S> ConnectionService<S> {
    pub(super) fn new(
        service: S,
        peer: SocketAddr,
        connection: Connection,
        permit: Arc<Permit>,
    ) -> Self {
        Self {
            service,
            peer,
            connection,
            permit,
        }
    }
}

type KeepError<E> = Box<dyn FnMut(E) -> E + Send>;

impl<S, B> Service<Request<Incoming>> for ConnectionService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + 'static,
    B::Error: 'static,
{
    type Response = Response<MapErr<B, KeepError<B::Error>>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = self.permit.begin_request();
        let extensions = request.extensions_mut();
        extensions.insert(Peer(self.peer));
        extensions.insert(self.connection.clone());
        // After such a head the framing is unchecked, because chunks are not parsed (`framing.rs`). So the connection ends
        // with this request, which RFC 9112, 6.1 allows.
        let is_last = request.headers().contains_key(TRANSFER_ENCODING);
        let response = self.service.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            if is_last {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            // This changes no error. The closure keeps the request in flight for as long as the body lives: hyper drops
            // both after the last frame.
            Ok(response.map(|body| {
                let keep: KeepError<B::Error> = Box::new(move |error| {
                    let _ = &in_flight;
                    error
                });
                body.map_err(keep)
            }))
        })
    }
}
