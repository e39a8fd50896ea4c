//! An accept loop with limits: what `warp::serve` lacks.
//!
//! `warp::serve` sets no timer, so half-sent headers stay open for ever, and its drain has no bound. This loop sets
//! a header deadline, caps connections, disables Nagle's algorithm, speaks HTTP/1.1 only and ends within `drain`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What one listener grants its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once; further ones wait in the listen queue.
    pub max_connections: usize,
    /// From the first byte of a request, or the end of the one before, to the end of its headers.
    pub header_timeout: Duration,
    /// From the stop signal to the end of the last connection.
    pub drain: Duration,
}

/// How the drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    Complete,
    /// Connections were still open at the deadline and were dropped.
    DeadlineMissed,
}

/// The most headers a request may have, and the most bytes they and one read may take.
const MAX_HEADERS: usize = 64;
const MAX_BUFFER: usize = 32 * 1024;

/// Serves `service` on `listener` until `stop`, then drains.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    stop: CancellationToken,
) -> Drain
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    while let Some((slot, stream)) = next_connection(&listener, &slots, &stop).await {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(stream), service.clone());
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended early");
            }
            drop(slot);
        });
        // What ended is forgotten here: there are never more left than connections that may be open.
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    match tokio::time::timeout(limits.drain, graceful.shutdown()).await {
        Ok(()) => Drain::Complete,
        Err(_) => {
            connections.shutdown().await;
            Drain::DeadlineMissed
        }
    }
}

/// The next accepted connection with its slot, or `None` once `stop` is cancelled.
async fn next_connection(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(OwnedSemaphorePermit, TcpStream)> {
    let slot = stop
        .run_until_cancelled(Arc::clone(slots).acquire_owned())
        .await?
        .expect("the semaphore is never closed");
    loop {
        match stop.run_until_cancelled(listener.accept()).await? {
            Ok((stream, _)) => {
                // Answers are one small write; without this they wait for the client's delayed ACK.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "could not set TCP_NODELAY");
                }
                return Some((slot, stream));
            }
            Err(error) => {
                // Out of file descriptors, or the client was gone already: do not spin.
                tracing::warn!(%error, "could not accept a connection");
                stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(50)))
                    .await?;
            }
        }
    }
}
