//! The connection to MySQL or to the client is cut at any moment: the response, or the later look-up, is right.

use std::time::Duration;

use serde_json::json;
use shared::domain::status::Action;
use shared::test_support::TestDb;
use shared::test_support::mysql_proxy::{Cut, MysqlProxy};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::harness::{Answer, Api, CUSTOMER, count, nothing_open};

/// An api that reaches MySQL through a proxy, with one order filed so that statements are prepared.
async fn api_behind_proxy() -> (Api, MysqlProxy) {
    let db = TestDb::create().await;
    let (proxy, url) = MysqlProxy::before(db.url()).await;
    let api = Api::start_on(db, &url, &["--filing-writers", "1"]).await;
    api.db.seed_orders(1, 10, CUSTOMER).await;
    (api, proxy)
}

#[tokio::test]
async fn a_connection_cut_before_commit_is_replaced() {
    for (text, cut) in [
        ("BEGIN", Cut::BeforeServer),
        ("BEGIN", Cut::BeforeAnswer),
        ("/* transition::insert_returns */", Cut::BeforeServer),
        ("/* transition::insert_returns */", Cut::BeforeAnswer),
        ("/* outbox::append */", Cut::BeforeAnswer),
    ] {
        let (api, proxy) = api_behind_proxy().await;
        proxy.arm(text, cut);
        let id = api.file(1).await.return_id();
        assert!(proxy.sprung(), "{text} {cut:?}");
        assert_eq!(
            count(&api.db, "SELECT COUNT(*) FROM returns").await,
            1,
            "{text} {cut:?}"
        );
        assert_eq!(count(&api.db, "SELECT MAX(id) FROM returns").await, id);
        nothing_open(&api.db).await;
        api.stop().await;
    }
}

#[tokio::test]
async fn p1_a_lost_commit_that_took_effect_is_a_201() {
    let (api, proxy) = api_behind_proxy().await;
    proxy.arm("COMMIT", Cut::BeforeAnswer);
    let id = api.file_with(1, Some("key")).await.return_id();
    assert!(proxy.sprung());
    assert_eq!(count(&api.db, "SELECT id FROM returns").await, id);
    nothing_open(&api.db).await;
    assert_eq!(api.file_with(1, Some("key")).await.return_id(), id);
    api.stop().await;
}

#[tokio::test]
async fn p1_a_lost_commit_that_took_no_effect_is_a_503_and_can_be_retried() {
    let (api, proxy) = api_behind_proxy().await;
    proxy.arm("COMMIT", Cut::BeforeServer);
    api.file_with(1, Some("key"))
        .await
        .problem(503, "outcome-unknown");
    assert!(proxy.sprung());
    nothing_open(&api.db).await;
    assert_eq!(
        count(&api.db, "SELECT COUNT(*) FROM returns").await,
        0,
        "nothing half-written"
    );
    assert_eq!(count(&api.db, "SELECT COUNT(*) FROM outbox").await, 0);
    let id = api.file_with(1, Some("key")).await.return_id();
    assert_eq!(count(&api.db, "SELECT id FROM returns").await, id);
    api.stop().await;
}

#[tokio::test]
async fn a_client_that_disconnects_leaves_no_transaction() {
    let api = Api::start().await;
    api.db.seed_orders(1, 200, CUSTOMER).await;
    let token = api.customer_token();
    for order in 1..=100 {
        let body = json!({"order_id": order, "reason": "gone"}).to_string();
        let request = format!(
            "POST /returns HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut client = TcpStream::connect(api.address).await.expect("connect");
        client.write_all(request.as_bytes()).await.expect("send");
        // Dropped without reading the response, at any moment of the filing.
        if order % 3 == 0 {
            tokio::task::yield_now().await;
        }
    }
    // The service goes on, and every filing that began is complete (the harness checks it at the end).
    for order in 101..=110 {
        assert_eq!(api.file(order).await.status, 201);
    }
    let db_check = count(&api.db, "SELECT COUNT(*) FROM returns").await;
    assert!(db_check >= 10);
    nothing_open(&api.db).await;
    api.stop().await;
}

#[tokio::test]
async fn mysql_away_is_a_503_and_nothing_is_half_written() {
    let db = TestDb::create().await;
    let (proxy, url) = MysqlProxy::before(db.url()).await;
    let api = Api::start_on(db, &url, &[]).await;
    api.db.seed_orders(1, 2, CUSTOMER).await;
    assert_eq!(api.file(1).await.status, 201);
    proxy.go_away();
    api.file(2).await.problem(503, "unavailable");
    api.get("/returns/1", &api.customer_token())
        .await
        .problem(503, "unavailable");
    let ready = api
        .http
        .get(format!("http://{}/readyz", api.ops))
        .send()
        .await
        .expect("a response");
    assert_eq!(ready.status(), 503);
    proxy.come_back();
    assert_eq!(api.file(2).await.status, 201);
    api.stop().await;
}

#[tokio::test]
async fn p11_p12_a_silent_connection_stops_neither_filing_nor_the_shutdown() {
    let (api, proxy) = api_behind_proxy().await;
    assert_eq!(api.file(1).await.status, 201);
    proxy.fall_silent();
    // The writer's connection hangs: its transaction ends after 8 s, and the next one gets a new connection.
    let first = api.file(2).await;
    first.problem(503, "outcome-unknown");
    assert_eq!(api.file(3).await.status, 201);
    let asked = Instant::now();
    api.stop().await;
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
}

/// The first request was not carried out; another person's decision raised the version.
#[tokio::test]
async fn a_412_after_an_unknown_outcome_only_says_that_something_has_changed() {
    let (api, proxy) = api_behind_proxy().await;
    let id = api.file(1).await.return_id();
    let approve = || async {
        let request = api.http.post(api.url(&format!("/returns/{id}/approve")));
        let request = request
            .bearer_auth(api.admin_token())
            .header("if-match", "\"1\"");
        Answer::read(request.send().await.expect("a response")).await
    };
    proxy.arm("COMMIT", Cut::BeforeServer);
    let unknown = approve().await.problem(503, "outcome-unknown");
    assert!(proxy.sprung());
    crate::moves::change(&api.db, id, &[Action::Cancel]).await;
    approve().await.problem(412, "precondition-failed");
    let read = api.get(&format!("/returns/{id}"), &api.admin_token()).await;
    assert_eq!(read.json()["status"], "cancelled");
    assert_eq!(read.header("etag"), Some("\"2\""));

    let about = unknown["type"].as_str().expect("an address");
    let about = api.get(about, &api.customer_token()).await;
    let about = String::from_utf8(about.body).expect("text");
    assert!(about.contains("read the return"), "{about}");
    assert!(!about.contains("412 then means"), "{about}");
    api.stop().await;
}
