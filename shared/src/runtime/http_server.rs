//! An accept loop with limits, which `warp::serve` lacks.
//!
//! `warp::serve` sets no timeout, so half-sent headers stay open for ever, and its drain has no deadline. This loop speaks
//! HTTP/1.1 only and disables Nagle's algorithm. It limits the size of request heads, and the time that a client takes
//! to send one or to read its response. It checks the framing itself where hyper keeps no trace (`framing.rs`), and it
//! ends within `drain`. At the connection limit, new connections evict idle ones (`connection_limit.rs`).

mod checked_stream;
mod connection_limit;
mod connection_service;
mod framing;
mod metrics;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use self::checked_stream::CheckedStream;
use self::connection_limit::{ConnectionLimit, Permit};
use self::connection_service::ConnectionService;
pub use self::connection_service::{Connection, Peer};
pub use self::metrics::ConnectionMetrics;

/// The limits of one listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once. For another one, the connection that has been idle longest is closed; if each has a
    /// request, the new connection waits.
    pub max_connections: usize,
    /// From the first byte of a request, or the end of the one before, to the end of its headers.
    pub header_timeout: Duration,
    /// How long a client may read no byte of a response that is written to it, or acknowledge none.
    pub write_timeout: Duration,
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

/// The most headers a request may have, and the most bytes that they and one read may take.
const MAX_HEADERS: usize = 64;
const MAX_BUFFER: usize = 32 * 1024;

/// Serves `service` on `listener` until `stop`. Then it drains: idle connections are closed, the others finish their
/// request. Each request carries its [`Peer`] and its [`Connection`] as extensions.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    metrics: ConnectionMetrics,
    stop: CancellationToken,
) -> Drain
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limit = ConnectionLimit::new(limits.max_connections, metrics);
    let mut connections = JoinSet::new();
    while let Some((stream, peer, permit)) = accept(&listener, &limit, limits, &stop).await {
        let connection = Connection::default();
        let aborted = connection.aborted();
        let service =
            ConnectionService::new(service.clone(), peer, connection, Arc::clone(&permit));
        let served = serve_connection(stream, service, limits, permit, stop.clone());
        connections.spawn(async move {
            aborted.run_until_cancelled(served).await;
        });
        // Forgets the tasks that have ended, so there are never more of them than connections.
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, ended).await.is_ok() {
        return Drain::Complete;
    }
    connections.shutdown().await;
    Drain::DeadlineMissed
}

/// How long an evicted connection may take to deliver a finished response. A large response on a bad network needs some
/// seconds; a client that does not read gets no more.
const DELIVERY_GRACE: Duration = Duration::from_secs(5);

/// How long a client may take for the rest of a request head once the server stops.
const HEAD_GRACE: Duration = Duration::from_secs(2);

/// Serves one connection to its end. When the server stops or the connection is evicted, it finishes the request in
/// flight. An idle connection ends at once if it is evicted; if the server stops, it may still complete half a head.
async fn serve_connection<S, B>(
    stream: TcpStream,
    service: ConnectionService<S>,
    limits: Limits,
    permit: Arc<Permit>,
    stop: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = CheckedStream::new(stream);
    let unwritten = stream.unwritten();
    let mut connection = pin!(http1_connection(stream, service, limits));
    let deadline = tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        () = stop.cancelled() => {
            // A response that is being written may take the whole drain.
            let idle = permit.idle_since().filter(|_| !is_set(&unwritten));
            idle.map(|_| Instant::now() + HEAD_GRACE)
        }
        () = permit.evicted() => {
            match permit.idle_since() {
                Some(_) if !is_set(&unwritten) => return,
                idle => idle.map(|since| since + DELIVERY_GRACE),
            }
        }
    };
    connection.as_mut().graceful_shutdown();
    if let Some(deadline) = deadline {
        match tokio::time::timeout_at(deadline, connection.as_mut()).await {
            Ok(ended) => return log_end(ended),
            Err(_) if permit.idle_since().is_some() => return,
            // The rest of the head came: this request gets its response, and then the connection ends.
            Err(_) => {}
        }
    }
    log_end(connection.await);
}

type Http1Stream = TokioIo<Pin<Box<TimeoutStream<CheckedStream<TcpStream>>>>>;

fn http1_connection<S, B>(
    stream: CheckedStream<TcpStream>,
    service: ConnectionService<S>,
    limits: Limits,
) -> http1::Connection<Http1Stream, ConnectionService<S>>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_timeout));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

fn is_set(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}

/// About the most bytes of a response that the kernel takes before it can send them. Without this limit, loopback takes a
/// response of 1.4 MB at once, and copying that for many clients that do not read delays all others. Bytes in flight to
/// a client that reads are not limited (`TCP_NOTSENT_LOWAT`, tcp(7)).
#[cfg(target_os = "linux")]
const UNSENT: u32 = 16 * 1024;

fn prepare(stream: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    // A response is one small write. With Nagle's algorithm it would wait for the client's delayed ACK.
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        // Bytes that the kernel has taken and the client does not acknowledge count as well. Without this limit the
        // kernel retries for a quarter of an hour when a client has disappeared.
        socket.set_tcp_user_timeout(Some(write_timeout))?;
        socket.set_tcp_notsent_lowat(UNSENT)?;
    }
    Ok(())
}

/// The next connection with its permit, or `None` once `stop` is cancelled.
async fn accept(
    listener: &TcpListener,
    limit: &Arc<ConnectionLimit>,
    limits: Limits,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, Arc<Permit>)> {
    loop {
        match stop.run_until_cancelled(listener.accept()).await? {
            Ok((stream, peer)) => {
                if let Err(error) = prepare(&stream, limits.write_timeout) {
                    tracing::debug!(%error, "could not set an option of a socket");
                }
                // After the accept: no connection is evicted before there is a new one for its permit.
                let permit = stop.run_until_cancelled(limit.acquire()).await?;
                return Some((stream, peer, permit));
            }
            Err(error) => {
                // No file descriptor is left, or the client has disconnected already: do not retry in a busy loop.
                tracing::warn!(%error, "could not accept a connection");
                stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(50)))
                    .await?;
            }
        }
    }
}

#[cfg(test)]
mod tests;
