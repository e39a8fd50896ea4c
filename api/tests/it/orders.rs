//! `GET /orders`: the orders of a customer, and the reasons why one cannot be returned.

use serde_json::{Value, json};
use shared::domain::ids::CustomerId;

use crate::harness::{Api, CUSTOMER};
use crate::tokens::Format;

async fn orders(api: &Api, query: &str) -> Value {
    let answer = api
        .get(&format!("/orders{query}"), &api.customer_token())
        .await;
    assert_eq!(answer.status, 200, "{query}");
    answer.json()
}

#[tokio::test]
async fn each_order_shows_whether_it_may_be_returned_and_why_not() {
    let api = Api::start().await;
    api.db.seed_orders(1, 5, CUSTOMER).await;
    api.db.seed_orders(6, 1, CustomerId(43)).await;
    for sql in [
        "UPDATE orders SET status = 'shipped', delivered_at = NULL WHERE id = 2",
        "UPDATE orders SET delivered_at = UTC_TIMESTAMP(6) - INTERVAL 31 DAY, refunded_amount = total WHERE id = 3",
        "UPDATE orders SET currency = '???' WHERE id = 5",
    ] {
        sqlx::query(sql).execute(&api.db.pool).await.expect(sql);
    }
    let open = api.file(4).await.return_id();
    let page = orders(&api, "").await;
    let listed: Vec<Value> = page["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|order| {
            json!([
                order["order_id"],
                order["returnable"],
                order["reasons"],
                order["open_return_id"]
            ])
        })
        .collect();
    // Newest first; the sixth belongs to another customer.
    assert_eq!(
        listed,
        [
            json!([5, false, ["amount_not_payable"], null]),
            json!([4, false, ["already_open"], open]),
            json!([3, false, ["window_expired", "already_refunded"], null]),
            json!([2, false, ["order_not_delivered"], null]),
            json!([1, true, [], null]),
        ]
    );
    let first = &page["items"][4];
    assert_eq!(
        first["total"],
        json!({"amount": "49.90", "currency": "EUR"})
    );
    // The list agrees with the responses to filings.
    for (order, status) in [(5, 422), (4, 409), (3, 422), (2, 422), (1, 201)] {
        assert_eq!(api.file(order).await.status, status, "order {order}");
    }
    api.stop().await;
}

#[tokio::test]
async fn pages_contain_every_order_once() {
    let api = Api::start().await;
    api.db.seed_orders(1, 7, CUSTOMER).await;
    let mut seen = Vec::new();
    let mut query = "?limit=3".to_owned();
    loop {
        let answer = api
            .get(&format!("/orders{query}"), &api.customer_token())
            .await;
        let page = answer.json();
        let ids = page["items"].as_array().expect("items").iter();
        seen.extend(ids.map(|order| order["order_id"].as_i64().expect("an id")));
        let link = answer.header("link").map(str::to_owned);
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert_eq!(link, None);
            break;
        };
        query = format!("?limit=3&cursor={cursor}");
        assert_eq!(link, Some(format!("<{query}>; rel=\"next\"")));
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
    let before_all = api.get("/orders?cursor=-1", &api.customer_token()).await;
    assert_eq!(before_all.status, 200, "an integer, as the document has it");
    for (query, field) in [
        ("?limit=0", "limit"),
        ("?cursor=x", "cursor"),
        ("?cursor=%2B1", "cursor"),
    ] {
        let answer = api
            .get(&format!("/orders{query}"), &api.customer_token())
            .await;
        assert_eq!(
            answer.problem(422, "invalid-fields")["errors"][0]["parameter"],
            field
        );
    }
    let admin = api.token_of(Format::Biscuit, 7, "admin");
    api.get("/orders", &admin).await.problem(403, "forbidden");
    api.stop().await;
}
