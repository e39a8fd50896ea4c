//! The service of one connection: it marks requests as in flight and adds the peer's address.

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

use super::connection_limit::Permit;

/// The other end of the connection, a client or a proxy. An extension of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Wraps the service of the listener for one connection.
#[derive(Debug)]
pub(super) struct ConnectionService<S> {
    service: S,
    peer: SocketAddr,
    permit: Arc<Permit>,
}

impl<S> ConnectionService<S> {
    pub(super) fn new(service: S, peer: SocketAddr, permit: Arc<Permit>) -> Self {
        Self {
            service,
            peer,
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
        request.extensions_mut().insert(Peer(self.peer));
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
