//! Clients that send slowly, read slowly, or only hold connections.

use std::time::Duration;

use shared::domain::status::Action;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout};

use crate::harness::{Api, CUSTOMER};
use crate::moves::change;
use crate::wire::{DEADLINE, Wire, statuses};
use shared::test_support::long_form;

const HALF: &[u8] = b"GET /returns/1 HTTP/1.1\r\nHost: x\r\n";

#[tokio::test]
async fn p12_half_a_head_has_a_deadline() {
    let api = Api::start_with(&["--api-header-timeout-secs", "1"]).await;
    for half in [&b""[..], HALF, b"\r\n\r\n"] {
        let mut wire = Wire::connect(api.address).await;
        wire.send(half).await;
        assert_eq!(wire.until_closed().await, "");
    }
    api.stop().await;
}

#[tokio::test]
async fn p12_a_trickling_head_does_not_extend_the_deadline() {
    let api = Api::start_with(&["--api-header-timeout-secs", "1"]).await;
    let mut wire = Wire::connect(api.address).await;
    let begun = Instant::now();
    wire.send(HALF).await;
    while wire.send(b"A: b\r\n").await {
        assert!(begun.elapsed() < DEADLINE, "still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    api.stop().await;
}

#[tokio::test]
async fn p12_a_slow_body_gets_408() {
    let api = Api::start_with(&["--api-body-timeout-secs", "1"]).await;
    let mut wire = Wire::connect(api.address).await;
    let head = format!(
        "POST /returns HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{",
        api.customer_token()
    );
    wire.send(head.as_bytes()).await;
    let answer = wire.until_closed().await;
    assert_eq!(statuses(&answer), [408], "{answer}");
    assert!(answer.contains("/problems/request-timeout"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    api.stop().await;
}

#[tokio::test]
async fn p12_a_client_that_does_not_read_is_dropped() {
    let api = Api::start_with(&["--api-write-timeout-secs", "1"]).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(api.address).await.expect("connect");
    let many = [HALF, b"\r\n"].concat().repeat(1_000);
    // Responses fill the buffers between the two. Then the server's write waits, and it reads no further request.
    let dropped = async { while stream.write_all(&many).await.is_ok() {} };
    timeout(DEADLINE, dropped).await.expect("dropped");
    assert_eq!(
        api.get("/returns/1", &api.customer_token()).await.status,
        404
    );
    api.stop().await;
}

/// Events that do not fit into the socket stay in rows, not in memory. The stream ends with its connection.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn p12_a_client_that_does_not_read_its_stream_is_dropped() {
    let flags = ["--api-write-timeout-secs", "1", "--streams-max", "1"];
    let api = Api::start_with(&flags).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    change(&api.db, id, &[Action::Approve, Action::Claim]).await;
    // Some 100 bytes each: more than the buffers between the two.
    for _ in 0..20 {
        change(&api.db, id, &[Action::OutcomeUnknown; 200]).await;
    }
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(api.address).await.expect("connect");
    let request = format!(
        "GET /returns/{id}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nLast-Event-ID: 0\r\n\r\n",
        api.customer_token()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut begun = [0; 12];
    stream.read_exact(&mut begun).await.expect("a response");
    assert_eq!(&begun, b"HTTP/1.1 200");
    api.until_metric("streams_open 0").await;
    let sent = api.metric("streams_events_total").await;
    assert!(
        sent > 0.0 && sent < 4003.0,
        "{sent} of 4003 events found room"
    );
    drop(stream);
    api.stop().await;
}

#[tokio::test]
async fn p12_many_idle_connections_do_not_keep_other_clients_out() {
    let api = Api::start_with(&["--api-max-connections", "50", "--streams-max", "10"]).await;
    let token = api.customer_token();
    let mut crowd = Vec::new();
    for n in 0..long_form("CROWD", 200) {
        let mut wire = Wire::connect(api.address).await;
        if n % 2 == 0 {
            wire.send(HALF).await;
        }
        crowd.push(wire);
        // Some on the connection of the previous request, some on a new one.
        if n % 20 == 0 {
            let answer = timeout(Duration::from_secs(5), api.get("/returns/1", &token)).await;
            assert_eq!(answer.expect("served promptly").status, 404);
        }
    }
    assert_eq!(api.metric("http_server_connections").await, 50.0);
    assert!(api.metric("http_server_connections_evicted_total").await > 0.0);
    // The oldest were closed for it. The newest are still open and get responses.
    assert_eq!(crowd.remove(0).until_closed().await, "");
    let mut youngest = crowd.pop().expect("many of them");
    youngest.send(HALF).await;
    youngest.send(b"Connection: close\r\n\r\n").await;
    assert_eq!(statuses(&youngest.until_closed().await), [401]);
    drop(crowd);
    api.stop().await;
}

#[tokio::test]
async fn p12_no_request_in_progress_is_dropped_for_a_new_connection() {
    let api = Api::start_with(&["--api-max-connections", "1", "--streams-max", "0"]).await;
    let mut first = Wire::connect(api.address).await;
    let head = format!(
        "POST /returns HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        api.customer_token()
    );
    first.send(head.as_bytes()).await;
    first.until("100 Continue").await;
    let mut second = Wire::connect(api.address).await;
    second.send(HALF).await;
    second.send(b"Connection: close\r\n\r\n").await;
    first.send(b"[]").await;
    // Closed after its response, for the second connection.
    let answer = first.until_closed().await;
    assert_eq!(statuses(&answer), [422], "{answer}");
    assert_eq!(statuses(&second.until_closed().await), [401]);
    api.stop().await;
}
