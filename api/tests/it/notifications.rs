//! The payment provider's notifications: signed, harmless, and without an answer to the question what exists.

use shared::domain::refund::notification::{SIGNATURE_HEADER, sign};
use shared::runtime::clock::unix_secs;

use crate::harness::{Answer, Api, count};

const SECRET: &str = "a secret of at least thirty-two bytes";
const PATH: &str = "/gateway/notifications";

async fn start() -> Api {
    Api::start_with(&["--gateway-notification-secret", SECRET]).await
}

async fn send(api: &Api, body: &str, signature: Option<String>) -> Answer {
    let mut request = api.http.post(api.url(PATH)).body(body.to_owned());
    request = request.header("content-type", "application/json");
    if let Some(signature) = signature {
        request = request.header(SIGNATURE_HEADER, signature);
    }
    Answer::read(request.send().await.expect("a response")).await
}

async fn signed(api: &Api, body: &str) -> Answer {
    let signature = sign(&SECRET.into(), unix_secs(), body.as_bytes());
    send(api, body, Some(signature)).await
}

/// A refund of gateway `acme` in this state, not due for an hour.
async fn refund(api: &Api, order: i64, state: &str) -> String {
    api.db.seed_orders(order, 1, crate::harness::CUSTOMER).await;
    let id = api.file(order).await.return_id();
    let key = format!("refund-{order}");
    sqlx::query(
        "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, recheck_at, \
         gateway, gateway_ref, created_at, updated_at) VALUES (?, 1, ?, 49.90, 'EUR', ?, UTC_TIMESTAMP(6) + INTERVAL 1 HOUR, \
         UTC_TIMESTAMP(6) + INTERVAL 1 HOUR, 'acme', 're_1', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
    )
    .bind(id)
    .bind(&key)
    .bind(state)
    .execute(&api.db.pool)
    .await
    .expect("an attempt");
    format!(r#"{{"gateway":"acme","reference":"{key}","new":{{"field":1}}}}"#)
}

const RECHECKED: &str = "SELECT COUNT(*) FROM refunds WHERE recheck_at <= UTC_TIMESTAMP(6)";
const CHECKED: &str = "SELECT COUNT(*) FROM refunds WHERE next_check_at <= UTC_TIMESTAMP(6)";

#[tokio::test]
async fn p5_a_notification_makes_a_refund_due_and_does_nothing_else() {
    let api = start().await;
    let paid = refund(&api, 1, "succeeded").await;
    let open = refund(&api, 2, "pending").await;
    let parked = refund(&api, 3, "parked").await;
    let rest = "SELECT CAST(SUM(CRC32(CONCAT_WS(',', f.return_id, f.state, f.idempotency_key, f.owner, f.checks, f.gateway_ref, \
                r.status, r.version))) AS SIGNED) FROM refunds f JOIN returns r ON r.id = f.return_id";
    let before = count(&api.db, rest).await;
    // A provider repeats a notification until it is answered.
    for body in [&paid, &open, &parked, &paid, &open] {
        assert_eq!(signed(&api, body).await.status, 202);
    }
    assert_eq!(
        (
            count(&api.db, RECHECKED).await,
            count(&api.db, CHECKED).await
        ),
        (1, 1)
    );
    assert_eq!(count(&api.db, rest).await, before);
    let planned = "SELECT COUNT(*) FROM refunds WHERE state = 'pending' \
                   AND planned_check_at > UTC_TIMESTAMP(6) + INTERVAL 59 MINUTE";
    assert_eq!(count(&api.db, planned).await, 1, "as before");
    api.until_metric(r#"gateway_notifications_total{result="due"} 4"#)
        .await;
    api.until_metric(r#"gateway_notifications_total{result="unknown"} 1"#)
        .await;
    api.stop().await;
}

#[tokio::test]
async fn p13_an_unknown_refund_gets_the_same_response() {
    let api = start().await;
    let known = refund(&api, 1, "succeeded").await;
    let other_account = known.replace("acme", "other");
    let unknown = known.replace("refund-1", "refund-9");
    for body in [other_account, unknown] {
        let answer = signed(&api, &body).await;
        assert_eq!((answer.status, answer.body.len()), (202, 0), "{body}");
    }
    assert_eq!(count(&api.db, RECHECKED).await, 0);
    api.stop().await;
}

#[tokio::test]
async fn p13_without_a_good_signature_nothing_happens() {
    let api = start().await;
    let body = refund(&api, 1, "succeeded").await;
    let now = unix_secs();
    let good = |secret: &str, at| Some(sign(&secret.into(), at, body.as_bytes()));
    for signature in [
        None,
        Some("t=1,v1=00".to_owned()),
        Some(String::new()),
        good("another secret of thirty-two bytes", now),
        good(SECRET, now - 400),
        good(SECRET, now + 400),
        Some(sign(&SECRET.into(), now, b"{}")),
    ] {
        let answer = send(&api, &body, signature.clone()).await;
        answer.problem(400, "bad-request");
    }
    assert_eq!(count(&api.db, RECHECKED).await, 0);
    let large = format!("{{\"gateway\":\"{}\"}}", "x".repeat(20_000));
    signed(&api, &large).await.problem(413, "body-too-large");
    signed(&api, "{}").await.problem(422, "invalid-fields");
    api.stop().await;
}

#[tokio::test]
async fn without_a_secret_the_path_does_not_exist() {
    let api = Api::start().await;
    signed(&api, "{}").await.problem(404, "not-found");
    api.stop().await;
}

/// They wait for one connection; filings have the others.
#[tokio::test]
async fn p12_notifications_that_wait_leave_filings_their_connections() {
    let api = start().await;
    let body = refund(&api, 1, "succeeded").await;
    let mut blocker = api.db.pool.begin().await.expect("begin");
    sqlx::query("SELECT return_id FROM refunds FOR UPDATE")
        .execute(&mut *blocker)
        .await
        .expect("lock");
    let waiting = futures_util::future::join_all((0..40).map(|_| signed(&api, &body)));
    let filing = async {
        api.db.seed_orders(10, 5, crate::harness::CUSTOMER).await;
        for order in 10..15 {
            assert_eq!(api.file(order).await.status, 201);
        }
    };
    let (answers, ()) = tokio::join!(waiting, filing);
    assert!(answers.iter().all(|answer| answer.status == 503));
    blocker.rollback().await.expect("rollback");
    assert_eq!(signed(&api, &body).await.status, 202);
    api.stop().await;
}
