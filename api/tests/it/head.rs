//! HEAD wherever GET exists, on both ports: the same status and headers, and no body.

use std::net::SocketAddr;

use crate::harness::{Api, CUSTOMER};
use crate::wire::Wire;

/// The status line and the headers, without those that differ between two equal requests; and the body.
async fn asked(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: &str,
) -> (Vec<String>, String) {
    let mut wire = Wire::connect(address).await;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    wire.send(request.as_bytes()).await;
    let answer = wire.until_closed().await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a response");
    let varies = |line: &&str| !line.starts_with("date:") && !line.starts_with("x-request-id:");
    let head = head.split("\r\n").filter(varies).map(str::to_owned);
    (head.collect(), body.to_owned())
}

#[tokio::test]
async fn head_is_get_without_a_body_on_both_ports() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let admin = api.admin_token();
    for (address, path) in [
        (api.address, "/returns".to_owned()),
        (api.address, format!("/returns/{id}")),
        (api.address, format!("/returns/{id}/events")),
        (api.address, "/events?limit=1".to_owned()),
        (api.address, "/returns?limit=0".to_owned()),
        (api.address, "/openapi.json".to_owned()),
        (api.address, "/docs/index.html".to_owned()),
        (api.address, "/problems/not-found".to_owned()),
        (api.address, "/nothing".to_owned()),
        (api.ops, "/livez".to_owned()),
        (api.ops, "/readyz".to_owned()),
        (api.ops, "/nothing".to_owned()),
    ] {
        let (get, body) = asked(address, "GET", &path, &admin).await;
        assert!(!body.is_empty(), "{path}");
        assert_eq!(
            asked(address, "HEAD", &path, &admin).await,
            (get, String::new()),
            "{path}"
        );
    }
    // Metrics change between two requests.
    let (metrics, body) = asked(api.ops, "HEAD", "/metrics", &admin).await;
    assert_eq!(
        (metrics[0].as_str(), body.as_str()),
        ("HTTP/1.1 200 OK", "")
    );
    // Where GET does not exist, HEAD does not either.
    let path = format!("/returns/{id}/cancel");
    let (cancel, _) = asked(api.address, "HEAD", &path, &admin).await;
    assert_eq!(cancel[0], "HTTP/1.1 405 Method Not Allowed");
    assert!(cancel.contains(&"allow: POST".to_owned()), "{cancel:?}");
    api.stop().await;
}

/// A stream that nobody reads would hold its quota.
#[tokio::test]
async fn head_of_a_stream_ends_at_once_and_holds_no_quota() {
    let api = Api::start_with(&["--streams-per-caller", "1"]).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let path = format!("/returns/{id}/stream");
    for _ in 0..5 {
        let (head, body) = asked(api.address, "HEAD", &path, &api.customer_token()).await;
        assert_eq!((head[0].as_str(), body.as_str()), ("HTTP/1.1 200 OK", ""));
        assert!(
            head.contains(&"content-type: text/event-stream".to_owned()),
            "{head:?}"
        );
    }
    api.stop().await;
}
