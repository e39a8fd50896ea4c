//! Filing one return: the rows that it writes, and the orders that are refused.

use serde_json::{Value, json};
use shared::domain::audit::GENESIS;
use sqlx::Row;

use crate::harness::{Api, CUSTOMER};

#[tokio::test]
async fn p1_a_201_has_its_return_event_and_outbox_row() {
    // So that the request may name itself and its trace.
    let api = Api::start_with(&["--trusted-proxies", "127.0.0.0/8"]).await;
    api.db.seed_orders(123, 1, CUSTOMER).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let answer = crate::harness::Answer::read(
        api.http
            .post(api.url("/returns"))
            .bearer_auth(api.customer_token())
            .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
            .header("x-request-id", "req-1")
            .json(&json!({"order_id": 123, "reason": "too small", "reason_code": "size"}))
            .send()
            .await
            .expect("a response"),
    )
    .await;
    let id = answer.return_id();
    assert_eq!(
        answer.body,
        format!(r#"{{"return_id":{id},"status":"initiated"}}"#).into_bytes()
    );
    assert_eq!(
        answer.header("location"),
        Some(format!("/returns/{id}").as_str())
    );
    assert_eq!(answer.header("x-request-id"), Some("req-1"));
    let row = sqlx::query(
        "SELECT r.status, r.refund_amount, r.currency, r.version, e.seq, e.event_type, e.actor_type, e.actor_id, \
         e.request_id, e.trace_id, e.prev_hash, e.event_data, e.event_id = o.event_id AS same, o.topic, o.msg_key, \
         o.payload, o.traceparent, o.shard = (CRC32('123') & 15) AS shard_matches, e.created_at = r.created_at AS same_time \
         FROM returns r JOIN return_events e ON e.return_id = r.id JOIN outbox o ON o.aggregate_id = r.id",
    )
    .fetch_one(&api.db.pool)
    .await
    .expect("one return, one event, one outbox row");
    let text = |column: &str| row.try_get::<String, _>(column).expect("a text");
    assert_eq!(text("status"), "initiated");
    assert_eq!(text("event_type"), "return.initiated");
    assert_eq!(
        (text("actor_type"), text("actor_id")),
        ("customer".to_owned(), "42".to_owned())
    );
    assert_eq!(
        (text("request_id"), text("trace_id")),
        ("req-1".to_owned(), trace.to_owned())
    );
    assert_eq!(text("prev_hash"), GENESIS);
    assert_eq!(
        (text("topic"), text("msg_key")),
        ("order.returns".to_owned(), "123".to_owned())
    );
    assert!(text("traceparent").contains(trace));
    let payload: Vec<u8> = row.try_get("payload").expect("bytes");
    assert_eq!(
        payload,
        format!(r#"{{"return_id":{id},"order_id":123}}"#).into_bytes()
    );
    let data: Value = serde_json::from_str(&text("event_data")).expect("JSON");
    assert_eq!(
        (&data["from"], &data["to"], &data["order_id"]),
        (&json!(null), &json!("initiated"), &json!("123"))
    );
    for flag in ["same", "shard_matches", "same_time"] {
        assert_eq!(row.try_get::<i64, _>(flag).expect(flag), 1, "{flag}");
    }
    api.stop().await;
}

#[tokio::test]
async fn every_violation_of_the_policy_is_listed() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    sqlx::query("UPDATE orders SET status = 'shipped', refunded_amount = total, delivered_at = UTC_TIMESTAMP(6) - INTERVAL 31 DAY")
        .execute(&api.db.pool)
        .await
        .expect("update");
    let problem = api.file(1).await.problem(422, "not-eligible");
    assert_eq!(
        problem["violations"],
        json!(["order_not_delivered", "window_expired", "already_refunded"])
    );
    api.stop().await;
}

#[tokio::test]
async fn an_open_return_is_named_to_its_owner() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let problem = api.file(1).await.problem(409, "already-open");
    assert_eq!(problem["return_id"], id);
    api.stop().await;
}

#[tokio::test]
async fn a_large_refund_waits_for_review() {
    let api = Api::start_with(&["--review-above-amount", "EUR:49.89"]).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    let shown = api
        .get(&format!("/returns/{id}"), &api.customer_token())
        .await
        .json();
    assert_eq!(shown["review_required"], true);
    assert_eq!(
        shown["refund"],
        json!({"amount": "49.90", "currency": "EUR"})
    );
    api.stop().await;
}
