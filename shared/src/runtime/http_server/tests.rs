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

/// A server with one seat, whose answers are large.
async fn start() -> (SocketAddr, Connections, CancellationToken) {
    let answer = || Full::new(Bytes::from(vec![b'x'; LARGE]));
    start_with(Duration::from_secs(60), answer).await
}

async fn start_with<B>(
    write_timeout: Duration,
    answer: impl Fn() -> B + Clone + Send + Sync + 'static,
) -> (SocketAddr, Connections, CancellationToken)
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    let service = service_fn(move |_: Request<Incoming>| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(Response::new(answer())) }
    });
    let limits = Limits {
        max_connections: 1,
        header_timeout: Duration::from_secs(60),
        write_timeout,
        drain: Duration::from_secs(60),
    };
    let stop = CancellationToken::new();
    let connections = Connections::default();
    tokio::spawn(serve(
        listener,
        service,
        limits,
        connections.clone(),
        stop.clone(),
    ));
    (address, connections, stop)
}

/// A connection with an answer that has begun.
async fn ask(address: SocketAddr) -> TcpStream {
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

async fn begin(stream: &mut TcpStream) {
    let mut status = [0; 12];
    let begun = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut status));
    begun.await.expect("in time").expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_finished_answer_is_not_cut_for_a_newcomer() {
    let (address, connections, stop) = start().await;
    let mut first = ask(address).await;
    begin(&mut first).await;
    let mut second = ask(address).await;
    until(|| connections.evicted.get() > 0).await;
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).await.expect("whole");
    assert!(rest.len() > LARGE, "cut after {} bytes", rest.len());
    begin(&mut second).await;
    stop.cancel();
}

#[tokio::test]
async fn a_newcomer_does_not_wait_for_a_client_that_does_not_read() {
    let (address, _, stop) = start().await;
    let mut first = ask(address).await;
    begin(&mut first).await;
    // It begins in less than the minute for which the first may take nothing.
    let mut second = ask(address).await;
    begin(&mut second).await;
    stop.cancel();
}

#[tokio::test]
async fn stopping_closes_what_is_idle_and_finishes_what_is_asked() {
    let (address, _, stop) = start().await;
    let mut busy = ask(address).await;
    begin(&mut busy).await;
    stop.cancel();
    // An answer may take longer to be read than half a head to be sent.
    tokio::time::sleep(HALF_HEAD + Duration::from_millis(500)).await;
    let mut rest = Vec::new();
    busy.read_to_end(&mut rest).await.expect("whole");
    assert!(rest.len() > LARGE, "cut after {} bytes", rest.len());
    // The listener is closed since the stop.
    assert!(TcpStream::connect(address).await.is_err());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernel_is_given_little_of_an_answer_that_nobody_reads() {
    const CHUNK: usize = 16 * 1024;
    let given = Arc::new(AtomicUsize::new(0));
    let of_server = Arc::clone(&given);
    let answer = move || {
        let given = Arc::clone(&of_server);
        StreamBody::new(stream::repeat_with(move || {
            given.fetch_add(CHUNK, Ordering::Relaxed);
            Ok(Frame::data(Bytes::from_static(&[b'x'; CHUNK])))
        }))
    };
    let (address, connections, stop) = start_with(Duration::from_secs(1), answer).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(address).await.expect("connect");
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    begin(&mut stream).await;
    // Dropped once it has taken nothing for a second: more will not be given.
    until(|| connections.open.get() == 0).await;
    let given = given.load(Ordering::Relaxed);
    assert!(given < 512 * 1024, "{given} bytes");
    stop.cancel();
}
