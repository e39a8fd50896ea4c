use std::sync::atomic::AtomicUsize;

use futures_util::stream;
use http_body_util::{Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::*;

/// More than the buffers of two sockets hold.
const LARGE: usize = 16 * 1024 * 1024;

/// A server for one connection with large responses.
async fn start() -> (SocketAddr, ConnectionMetrics, CancellationToken) {
    let response = || Full::new(Bytes::from(vec![b'x'; LARGE]));
    start_with(Duration::from_secs(60), response).await
}

async fn start_with<B>(
    write_timeout: Duration,
    body: impl Fn() -> B + Clone + Send + Sync + 'static,
) -> (SocketAddr, ConnectionMetrics, CancellationToken)
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    let service = service_fn(move |_: Request<Incoming>| {
        let body = body.clone();
        async move { Ok::<_, Infallible>(Response::new(body())) }
    });
    let limits = Limits {
        max_connections: 1,
        header_timeout: Duration::from_secs(60),
        write_timeout,
        drain: Duration::from_secs(60),
    };
    let stop = CancellationToken::new();
    let metrics = ConnectionMetrics::default();
    tokio::spawn(serve(
        listener,
        service,
        limits,
        metrics.clone(),
        stop.clone(),
    ));
    (address, metrics, stop)
}

/// A connection that has sent a request.
async fn request(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    stream
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let met = tokio::time::timeout(Duration::from_secs(20), wait).await;
    met.expect("in time");
}

async fn response_begins(stream: &mut TcpStream) {
    let mut status = [0; 12];
    let begun = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut status));
    begun.await.expect("in time").expect("a response");
    assert_eq!(&status, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_finished_response_is_not_cut_off_for_a_new_connection() {
    let (address, metrics, stop) = start().await;
    let mut first = request(address).await;
    response_begins(&mut first).await;
    let mut second = request(address).await;
    until(|| metrics.evicted.get() > 0).await;
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).await.expect("whole");
    assert!(rest.len() > LARGE, "cut after {} bytes", rest.len());
    response_begins(&mut second).await;
    stop.cancel();
}

#[tokio::test]
async fn a_new_connection_does_not_wait_for_a_client_that_does_not_read() {
    let (address, _, stop) = start().await;
    let mut first = request(address).await;
    response_begins(&mut first).await;
    // It begins within the minute that the first may take without reading.
    let mut second = request(address).await;
    response_begins(&mut second).await;
    stop.cancel();
}

#[tokio::test]
async fn a_stop_closes_idle_connections_and_finishes_requests() {
    let (address, _, stop) = start().await;
    let mut busy = request(address).await;
    response_begins(&mut busy).await;
    stop.cancel();
    // A client may take longer to read a response than to send half a head.
    tokio::time::sleep(HEAD_GRACE + Duration::from_millis(500)).await;
    let mut rest = Vec::new();
    busy.read_to_end(&mut rest).await.expect("whole");
    assert!(rest.len() > LARGE, "cut after {} bytes", rest.len());
    // The stop closed the listener.
    assert!(TcpStream::connect(address).await.is_err());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernel_takes_little_of_a_response_that_nobody_reads() {
    const CHUNK: usize = 16 * 1024;
    let taken = Arc::new(AtomicUsize::new(0));
    let of_server = Arc::clone(&taken);
    let response = move || {
        let taken = Arc::clone(&of_server);
        StreamBody::new(stream::repeat_with(move || {
            taken.fetch_add(CHUNK, Ordering::Relaxed);
            Ok(Frame::data(Bytes::from_static(&[b'x'; CHUNK])))
        }))
    };
    let (address, metrics, stop) = start_with(Duration::from_secs(1), response).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(address).await.expect("connect");
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    response_begins(&mut stream).await;
    // The connection is dropped once the client has read nothing for a second; then no more bytes are taken.
    until(|| metrics.open.get() == 0).await;
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken < 512 * 1024, "{taken} bytes");
    stop.cancel();
}
