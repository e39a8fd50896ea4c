use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// More than the buffers of two sockets hold.
const LARGE: usize = 16 * 1024 * 1024;

/// A server with one seat, whose answers are large.
async fn start() -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    let service = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; LARGE]))))
    });
    let limits = Limits {
        max_connections: 1,
        header_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(60),
        drain: Duration::from_secs(60),
    };
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, service, limits, stop.clone()));
    (address, stop)
}

/// A connection with an answer that has begun.
async fn ask(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    stream
}

async fn begin(stream: &mut TcpStream) {
    let mut status = [0; 12];
    let begun = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut status));
    begun.await.expect("in time").expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_finished_answer_is_not_cut_for_a_newcomer() {
    let (address, stop) = start().await;
    let mut first = ask(address).await;
    begin(&mut first).await;
    let mut second = ask(address).await;
    // Nothing tells when the server has accepted the second and wants the seat of the first.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).await.expect("whole");
    assert!(rest.len() > LARGE, "cut after {} bytes", rest.len());
    begin(&mut second).await;
    stop.cancel();
}

#[tokio::test]
async fn a_newcomer_does_not_wait_for_a_client_that_does_not_read() {
    let (address, stop) = start().await;
    let mut first = ask(address).await;
    begin(&mut first).await;
    let asked = Instant::now();
    let mut second = ask(address).await;
    begin(&mut second).await;
    assert!(asked.elapsed() < 2 * DELIVERY, "{:?}", asked.elapsed());
    stop.cancel();
}

#[tokio::test]
async fn stopping_closes_what_is_idle_and_finishes_what_is_asked() {
    let (address, stop) = start().await;
    let mut busy = ask(address).await;
    begin(&mut busy).await;
    stop.cancel();
    let mut rest = Vec::new();
    busy.read_to_end(&mut rest).await.expect("whole");
    assert!(rest.len() > LARGE, "cut after {} bytes", rest.len());
    // The listener is closed since the stop.
    assert!(TcpStream::connect(address).await.is_err());
}
