//! An accept loop with limits: what `warp::serve` lacks.
//!
//! `warp::serve` sets no timer, so half-sent headers stay open for ever, and its drain has no bound. This loop speaks
//! HTTP/1.1 only, disables Nagle's algorithm, bounds heads and the time that a client takes to send one or to read
//! its answer, looks at heads itself where hyper drops what it has read (`head.rs`), and ends within `drain`.
//! Connections are capped, and a crowd of idle ones keeps nobody out (`seats.rs`).

mod connections;
mod guarded;
mod head;
mod seats;
mod watched;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

pub use self::connections::Connections;
use self::guarded::Guarded;
use self::seats::{Seat, Seats};
pub use self::watched::Peer;
use self::watched::Watched;

/// What one listener grants its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once. For a further one, the connection that has waited longest for a request is closed;
    /// while each of them has a request under way, it waits.
    pub max_connections: usize,
    /// From the first byte of a request, or the end of the one before, to the end of its headers.
    pub header_timeout: Duration,
    /// How long a client may take no byte of an answer that is written to it, or acknowledge none.
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

/// The most headers a request may have, and the most bytes they and one read may take.
const MAX_HEADERS: usize = 64;
const MAX_BUFFER: usize = 32 * 1024;

/// Serves `service` on `listener` until `stop`, then drains: what waits for a request is closed, what has one is
/// answered. Each request carries its [`Peer`] as an extension.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    connections: Connections,
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
    let seats = Seats::new(limits.max_connections, connections);
    let mut conversations = JoinSet::new();
    while let Some((stream, peer, seat)) = next_connection(&listener, &seats, limits, &stop).await {
        let service = Watched::new(service.clone(), peer, Arc::clone(&seat));
        conversations.spawn(converse(stream, service, limits, seat, stop.clone()));
        // What ended is forgotten here: there are never more left than connections that may be open.
        while conversations.try_join_next().is_some() {}
    }
    drop(listener);
    let ended = async { while conversations.join_next().await.is_some() {} };
    match tokio::time::timeout(limits.drain, ended).await {
        Ok(()) => Drain::Complete,
        Err(_) => {
            conversations.shutdown().await;
            Drain::DeadlineMissed
        }
    }
}

/// How long a finished answer may take to be written once its seat is wanted. A large one on a bad network needs some
/// seconds; a client that does not read gets no more.
const DELIVERY: Duration = Duration::from_secs(5);

/// How long a client may take for the rest of a head once the server stops.
const HALF_HEAD: Duration = Duration::from_secs(2);

/// One connection from its first byte to its end. Told to stop or to make room, it answers the request that is under
/// way; without one, it ends at once to make room, and when told to stop unless half a head is there already.
async fn converse<S, B>(
    stream: TcpStream,
    service: Watched<S>,
    limits: Limits,
    seat: Arc<Seat>,
    stop: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = Guarded::new(stream);
    let unwritten = stream.unwritten();
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_timeout));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = pin!(connection);
    let (mut ending, mut end) = (false, None);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended early");
                }
                return;
            }
            () = at(end), if ending => {
                if seat.waits_since().is_some() {
                    return;
                }
                // The other half of the head came: it is answered, and the last.
                end = None;
                continue;
            }
            () = stop.cancelled(), if !ending => {
                let idle = seat.waits_since().filter(|_| !unwritten.load(Ordering::Relaxed));
                // An answer that is being written has all of the drain.
                end = idle.map(|_| Instant::now() + HALF_HEAD);
            }
            () = seat.wanted(), if !ending => {
                let idle = seat.waits_since();
                if idle.is_some() && !unwritten.load(Ordering::Relaxed) {
                    return;
                }
                end = idle.map(|since| since + DELIVERY);
            }
        }
        ending = true;
        connection.as_mut().graceful_shutdown();
    }
}

/// Then, or never.
async fn at(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

/// The most bytes of an answer that the kernel takes before it can send them, and then some: it fills what it has begun.
/// Without it loopback takes an answer of 1.4 MB whole, and copying that for each of a crowd that does not read delays
/// everybody else. What is under way to a client that reads is not bounded (`TCP_NOTSENT_LOWAT`, tcp(7)).
#[cfg(target_os = "linux")]
const UNSENT: u32 = 16 * 1024;

fn prepare(stream: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    // Answers are one small write; without this they wait for the client's delayed ACK.
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        // What the kernel has taken and the client does not acknowledge counts as well: a client that is gone without a
        // word would be waited for a quarter of an hour.
        socket.set_tcp_user_timeout(Some(write_timeout))?;
        socket.set_tcp_notsent_lowat(UNSENT)?;
    }
    Ok(())
}

/// The next connection with its seat, or `None` once `stop` is cancelled.
async fn next_connection(
    listener: &TcpListener,
    seats: &Arc<Seats>,
    limits: Limits,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, Arc<Seat>)> {
    loop {
        match stop.run_until_cancelled(listener.accept()).await? {
            Ok((stream, peer)) => {
                if let Err(error) = prepare(&stream, limits.write_timeout) {
                    tracing::debug!(%error, "could not set an option of a socket");
                }
                // Accepted first: a seat is not taken from anybody before somebody is there to sit on it.
                let seat = stop.run_until_cancelled(seats.take()).await?;
                return Some((stream, peer, seat));
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

#[cfg(test)]
mod tests;
