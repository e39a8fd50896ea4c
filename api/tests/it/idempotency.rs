//! P9: the same key and body get the same 201 and body, one row.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Api, CUSTOMER, count, post_return, until};

#[tokio::test]
async fn p9_replayed_key_returns_the_first_response() {
    let api = Api::start().await;
    api.db.seed_orders(1, 2, CUSTOMER).await;
    let first = api.file_with(1, Some("key-1")).await;
    let again = api.file_with(1, Some("key-1")).await;
    assert_eq!((first.status, &first.body), (201, &again.body));
    assert_eq!(first.header("location"), again.header("location"));
    // Also when the order could be returned again.
    sqlx::query("UPDATE returns SET status = 'rejected'")
        .execute(&api.db.pool)
        .await
        .expect("update");
    assert_eq!(api.file_with(1, Some("key-1")).await.body, first.body);
    api.file_with(2, Some("key-1"))
        .await
        .problem(422, "idempotency-key-reused");
    assert_eq!(api.file_with(2, Some("key-2")).await.status, 201);
    assert_eq!(count(&api.db, "SELECT COUNT(*) FROM returns").await, 2);
    api.stop().await;
}

#[tokio::test]
async fn p9_a_key_belongs_to_its_caller() {
    let api = Api::start().await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    api.db
        .seed_orders(2, 1, shared::domain::ids::CustomerId(43))
        .await;
    assert_eq!(api.file_with(1, Some("same")).await.status, 201);
    let other = api.keys.mint(json!({"user_id": 43, "role": "customer"}));
    let body = json!({"order_id": 2, "reason": "does not fit"});
    let answer = post_return(&api.http, api.address, &other, &body, Some("same")).await;
    assert_eq!(answer.status, 201);
    api.stop().await;
}

#[tokio::test]
async fn p9_fifty_concurrent_retries_over_two_apis_file_once() {
    let api = Api::start().await;
    let second = api.start_another().await;
    for round in 0..5_i64 {
        api.db.seed_orders(1 + round, 1, CUSTOMER).await;
        let key = format!("key-{round}");
        let body = json!({"order_id": 1 + round, "reason": "does not fit"});
        let token = api.customer_token();
        let mut repeats = tokio::task::JoinSet::new();
        for n in 0..50 {
            let address = if n % 2 == 0 {
                api.address
            } else {
                second.address
            };
            let (http, token, body, key) =
                (api.http.clone(), token.clone(), body.clone(), key.clone());
            repeats
                .spawn(async move { post_return(&http, address, &token, &body, Some(&key)).await });
        }
        let answers = repeats.join_all().await;
        let bodies: HashSet<Vec<u8>> = answers
            .iter()
            .map(|answer| {
                assert_eq!(
                    answer.status,
                    201,
                    "{}",
                    String::from_utf8_lossy(&answer.body)
                );
                answer.body.clone()
            })
            .collect();
        assert_eq!(bodies.len(), 1, "one answer for all repeats");
        assert_eq!(
            count(&api.db, "SELECT COUNT(*) FROM returns").await,
            1 + round
        );
    }
    second.stop.cancel();
    second.task.await.expect("no panic").expect("a clean end");
    api.stop().await;
}

#[tokio::test]
async fn expired_responses_are_deleted() {
    let api = Api::start().await;
    api.db.seed_orders(1, 2, CUSTOMER).await;
    for (order, key, hours) in [(1, "old", 26), (2, "young", 24)] {
        assert_eq!(api.file_with(order, Some(key)).await.status, 201);
        sqlx::query(
            "UPDATE idempotency SET created_at = created_at - INTERVAL ? HOUR WHERE idem_key = ?",
        )
        .bind(hours)
        .bind(key)
        .execute(&api.db.pool)
        .await
        .expect("update");
    }
    // Every api deletes expired rows when it starts.
    let second = api.start_another().await;
    until(
        "the expired response is deleted",
        Duration::from_secs(10),
        || async {
            let kept = count(&api.db, "SELECT COUNT(*) FROM idempotency").await;
            (kept == 1).then_some(())
        },
    )
    .await;
    // Not before the promised 24 hours.
    assert_eq!(api.file_with(2, Some("young")).await.status, 201);
    second.stop.cancel();
    second.task.await.expect("no panic").expect("a clean end");
    api.stop().await;
}
