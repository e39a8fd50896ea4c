//! The operator's port, and the shutdown.

use std::time::Duration;

use serde_json::json;
use shared::runtime::http_server::Drain;
use tokio::io::AsyncWriteExt;

use crate::harness::{Api, CUSTOMER, count, post_return, until};

#[tokio::test]
async fn the_operators_port_serves_health_and_metrics() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    assert_eq!(api.file(1).await.status, 201);
    let ops = |path: &str| api.http.get(format!("http://{}{path}", api.ops)).send();
    assert_eq!(ops("/livez").await.expect("a response").status(), 200);
    assert_eq!(ops("/readyz").await.expect("a response").status(), 200);
    assert_eq!(ops("/else").await.expect("a response").status(), 404);
    let metrics = ops("/metrics")
        .await
        .expect("a response")
        .text()
        .await
        .expect("text");
    for line in [
        r#"filing_outcomes_total{outcome="filed"} 1"#,
        r#"http_server_request_duration_seconds_count{method="POST",route="/returns",status="201"} 1"#,
        "filing_queue_length 0",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    // Blocking, like the sub-command that calls it.
    let address = api.ops;
    let alive = tokio::task::spawn_blocking(move || shared::runtime::ops::healthcheck(address));
    assert!(alive.await.expect("no panic"));
    api.stop().await;
}

/// Pings of this database's sessions so far.
async fn pings(api: &Api) -> i64 {
    count(
        &api.db,
        "SELECT CAST(COALESCE(SUM(s.count_star), 0) AS SIGNED) \
         FROM performance_schema.events_statements_summary_by_thread_by_event_name s \
         JOIN performance_schema.threads t ON t.thread_id = s.thread_id \
         WHERE s.event_name = 'statement/com/Ping' AND t.processlist_db = DATABASE()",
    )
    .await
}

#[tokio::test]
async fn p12_many_who_ask_whether_the_api_is_ready_share_one_ping_of_mysql() {
    let api = Api::start().await;
    let before = pings(&api).await;
    let asking = (0..50).map(|_| api.ops("/readyz?verbose"));
    for (status, page) in futures_util::future::join_all(asking).await {
        assert_eq!(status, 200);
        assert!(page.contains("ok mysql_answer_ms "), "{page}");
    }
    // Other tasks of the api may ping in these moments, too.
    let made = pings(&api).await - before;
    assert!((1..=10).contains(&made), "{made} pings for 50 requests");
    api.stop().await;
}

#[tokio::test]
async fn p11_accepted_requests_are_finished_when_the_api_stops_under_load() {
    let api = Api::start().await;
    api.db.seed_orders(1, 2_000, CUSTOMER).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20_i64 {
        let (http, address, token) = (api.http.clone(), api.address, api.customer_token());
        tasks.spawn(async move {
            let mut filed = 0_i64;
            for order in (1 + n * 100)..=(100 + n * 100) {
                let request = http
                    .post(format!("http://{address}/returns"))
                    .bearer_auth(&token)
                    .json(&json!({"order_id": order, "reason": "x"}));
                match request.send().await {
                    Ok(response) => {
                        assert_eq!(response.status(), 201);
                        filed += 1;
                    }
                    Err(_) => break,
                }
            }
            filed
        });
    }
    until("200 are filed", Duration::from_secs(10), || async {
        let filed = count(&api.db, "SELECT COUNT(*) FROM returns").await;
        (filed >= 200).then_some(())
    })
    .await;
    let (db, drain) = api.stop_and_keep_db().await;
    assert_eq!(drain, Drain::Complete);
    let answered: i64 = tasks.join_all().await.into_iter().sum();
    assert_eq!(count(&db, "SELECT COUNT(*) FROM returns").await, answered);
}

#[tokio::test]
async fn p11_a_half_sent_request_does_not_delay_the_shutdown() {
    let api = Api::start().await;
    let mut client = tokio::net::TcpStream::connect(api.address)
        .await
        .expect("connect");
    client
        .write_all(b"POST /returns HTTP/1.1\r\nHost: x\r\n")
        .await
        .expect("send");
    // This request gets its response, so the half-sent connection before it is accepted by now.
    assert_eq!(
        api.get("/returns/1", &api.customer_token()).await.status,
        404
    );
    let asked = tokio::time::Instant::now();
    let (_db, drain) = api.stop_and_keep_db().await;
    assert_eq!(drain, Drain::Complete);
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn an_old_schema_is_named_at_start() {
    let db = shared::test_support::TestDb::create().await;
    sqlx::query("DELETE FROM _sqlx_migrations ORDER BY version DESC LIMIT 1")
        .execute(&db.pool)
        .await
        .expect("delete");
    let error = shared::runtime::schema::check(&db.database(1))
        .await
        .expect_err("must be refused");
    assert!(error.to_string().contains("returnsctl migrate"), "{error}");
}

#[tokio::test]
async fn white_space_in_a_retry_does_not_matter_but_another_body_does() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let body = json!({"order_id": 1, "reason": "x"});
    let token = api.customer_token();
    let first = post_return(&api.http, api.address, &token, &body, Some("k")).await;
    let request = api
        .http
        .post(api.url("/returns"))
        .bearer_auth(&token)
        .header("idempotency-key", "k")
        .header("content-type", "application/json")
        .body("{ \"reason\" : \"x\", \"order_id\" : 1 }");
    let again = crate::harness::Answer::read(request.send().await.expect("a response")).await;
    assert_eq!((again.status, again.body), (201, first.body));
    api.stop().await;
}

#[tokio::test]
async fn p11_load_balancers_see_the_shutdown_before_connections_are_refused() {
    let flags = ["--api-stop-delay-secs", "5", "--api-drain-secs", "30"];
    let api = Api::start_with(&flags).await;
    api.stop.cancel();
    until("it is not ready", Duration::from_secs(20), || async {
        (api.ops("/readyz").await.0 == 503).then_some(())
    })
    .await;
    let late = tokio::net::TcpStream::connect(api.address).await;
    drop(late.expect("still taken"));
    assert_eq!(
        api.get("/returns/1", &api.customer_token()).await.status,
        404
    );
    let address = api.address;
    let (_db, drain) = api.stop_and_keep_db().await;
    assert_eq!(drain, Drain::Complete);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
