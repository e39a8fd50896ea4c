//! `GET /returns/{id}` and keyset pages.

use serde_json::{Value, json};

use crate::harness::{Api, CUSTOMER};

#[tokio::test]
async fn a_return_is_shown_with_its_etag() {
    let api = Api::start().await;
    api.db.seed_orders(5, 1, CUSTOMER).await;
    let id = api.file(5).await.return_id();
    let path = format!("/returns/{id}");
    let shown = api.get(&path, &api.customer_token()).await;
    assert_eq!((shown.status, shown.header("etag")), (200, Some("\"1\"")));
    let mut body = shown.json();
    for time in ["created_at", "updated_at"] {
        let text = body[time].take();
        let text = text.as_str().expect("a time");
        assert!(text.len() == 27 && text.ends_with('Z'), "{text}");
    }
    assert_eq!(
        body,
        json!({
            "return_id": id, "order_id": 5, "customer_id": 42, "status": "initiated", "reason": "does not fit",
            "review_required": false, "refund": {"amount": "49.90", "currency": "EUR"}, "version": 1,
            "created_at": null, "updated_at": null
        })
    );
    let request = api
        .http
        .get(api.url(&path))
        .bearer_auth(api.customer_token())
        .header("if-none-match", "\"1\"");
    let unchanged = request.send().await.expect("an answer");
    assert_eq!(unchanged.status(), 304);
    api.stop().await;
}

async fn all_pages(api: &Api, query: &str) -> Vec<i64> {
    let token = api.admin_token();
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("/returns?{query}{cursor}"), &token).await;
        assert_eq!(page.status, 200, "{}", String::from_utf8_lossy(&page.body));
        let page = page.json();
        let items = page["items"].as_array().expect("items");
        ids.extend(
            items
                .iter()
                .map(|item| item["return_id"].as_i64().expect("an id")),
        );
        match &page["next_cursor"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => return ids,
        }
    }
}

#[tokio::test]
async fn pages_hold_every_return_once_newest_first() {
    let api = Api::start().await;
    api.db.seed_orders(1, 25, CUSTOMER).await;
    let mut filed = Vec::new();
    for order in 1..=25 {
        filed.push(api.file(order).await.return_id());
    }
    // Rows of one instant are told apart by id.
    sqlx::query(
        "UPDATE returns SET created_at = '2026-01-02 03:04:05.678901' WHERE order_id <= 10",
    )
    .execute(&api.db.pool)
    .await
    .expect("update");
    filed.reverse();
    for limit in [1, 7, 25, 200] {
        assert_eq!(
            all_pages(&api, &format!("limit={limit}")).await,
            filed,
            "limit {limit}"
        );
    }
    assert_eq!(all_pages(&api, "order_id=3").await.len(), 1);
    assert_eq!(all_pages(&api, "customer_id=42&limit=10").await.len(), 25);
    assert_eq!(all_pages(&api, "customer_id=43").await.len(), 0);
    assert_eq!(all_pages(&api, "status=refunded").await.len(), 0);
    assert_eq!(all_pages(&api, "status=initiated&limit=4").await, filed);
    let old = "created_from=2026-01-02T03:04:05.678901Z&created_before=2026-01-02T03:04:05.678902Z&limit=3";
    assert_eq!(all_pages(&api, old).await, filed[15..]);
    api.stop().await;
}
