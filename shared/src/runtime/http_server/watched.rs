//! What each request gets from its connection, and the connection from each answer.

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

use super::seats::Seat;

/// Who is at the other end of the connection: a client or a proxy. An extension of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// A service that tells the connection's [`Seat`] when there is something to do.
#[derive(Debug)]
pub(super) struct Watched<S> {
    service: S,
    peer: SocketAddr,
    seat: Arc<Seat>,
}

impl<S> Watched<S> {
    pub(super) fn new(service: S, peer: SocketAddr, seat: Arc<Seat>) -> Self {
        Self {
            service,
            peer,
            seat,
        }
    }
}

type KeepError<E> = Box<dyn FnMut(E) -> E + Send>;

impl<S, B> Service<Request<Incoming>> for Watched<S>
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
        let under_way = self.seat.work();
        request.extensions_mut().insert(Peer(self.peer));
        // From here on the head guard is blind: it does not follow chunks (`head.rs`). RFC 9112, 6.1 allows the close.
        let last = request.headers().contains_key(TRANSFER_ENCODING);
        let answer = self.service.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            if last {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            // No error is changed. The closure lives as long as the body: hyper drops both after the last frame.
            Ok(response.map(|body| {
                let keep: KeepError<B::Error> = Box::new(move |error| {
                    let _ = &under_way;
                    error
                });
                body.map_err(keep)
            }))
        })
    }
}
