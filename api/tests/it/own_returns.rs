//! `GET /returns` with a customer's token: their own returns, and no sign of others.

use serde_json::{Value, json};
use shared::domain::status::Action;

use crate::harness::{Api, CUSTOMER};
use crate::moves::change;
use crate::tokens::{Format, READ_ONLY, attenuate};

fn ids(page: &Value) -> Vec<i64> {
    let items = page["items"].as_array().expect("items").iter();
    items
        .map(|item| item["return_id"].as_i64().expect("an id"))
        .collect()
}

#[tokio::test]
async fn p13_a_customer_lists_their_own_returns_only_with_every_filter() {
    let api = Api::start().await;
    api.db.seed_orders(1, 4, CUSTOMER).await;
    api.db
        .seed_orders(10, 1, shared::domain::ids::CustomerId(43))
        .await;
    let mut filed = Vec::new();
    for order in 1..=4 {
        filed.push(api.file(order).await.return_id());
    }
    let other = api.token_of(Format::Jwt, 43, "customer");
    let body = json!({"order_id": 10, "reason": "x"});
    let others = crate::harness::post_return(&api.http, api.address, &other, &body, None).await;
    let others = others.return_id();
    change(&api.db, filed[0], &[Action::Cancel]).await;
    filed.reverse();
    for format in Format::ALL {
        let own = api.token_of(format, CUSTOMER.0, "customer");
        let list = async |query: &str| {
            let page = api.get(&format!("/returns{query}"), &own).await;
            assert_eq!(page.status, 200, "{}", String::from_utf8_lossy(&page.body));
            page.json()
        };
        assert_eq!(ids(&list("").await), filed);
        assert_eq!(ids(&list("?customer_id=42").await), filed);
        assert_eq!(ids(&list("?status=cancelled").await), filed[3..]);
        assert_eq!(ids(&list("?order_id=2").await), filed[2..3]);
        // Another customer's returns look like none, whether they exist or not.
        for query in ["?customer_id=43", "?customer_id=99", "?order_id=10"] {
            let none = list(query).await;
            assert_eq!(none, json!({"items": [], "next_cursor": null}), "{query}");
        }
        let first = list("?limit=3").await;
        assert_eq!(ids(&first), filed[..3]);
        let cursor = first["next_cursor"].as_str().expect("a next page");
        assert_eq!(
            ids(&list(&format!("?limit=3&cursor={cursor}")).await),
            filed[3..]
        );
    }
    let page = api.get("/returns", &other).await.json();
    assert_eq!(ids(&page), [others]);
    let narrowed = attenuate(&api.token_of(Format::Biscuit, 43, "customer"), READ_ONLY);
    assert_eq!(ids(&api.get("/returns", &narrowed).await.json()), [others]);
    // The row itself: the same as when it is read by its id.
    let shown = api.get(&format!("/returns/{others}"), &other).await.json();
    assert_eq!(page["items"][0], shown);
    let auditor = api.token_of(Format::Jwt, 8, "auditor");
    api.get("/returns", &auditor)
        .await
        .problem(403, "forbidden");
    api.stop().await;
}

#[tokio::test]
async fn returns_that_wait_for_a_review_are_listed() {
    let api = Api::start_with(&["--review-above-amount", "EUR:49.89"]).await;
    api.db.seed_orders(1, 3, CUSTOMER).await;
    let mut filed = Vec::new();
    for order in 1..=3 {
        filed.push(api.file(order).await.return_id());
    }
    change(&api.db, filed[0], &[Action::Approve]).await;
    let list = async |query: &str| ids(&api.get(query, &api.admin_token()).await.json());
    assert_eq!(list("/returns?review=required").await, [filed[2], filed[1]]);
    assert_eq!(list("/returns?review=required&limit=1").await, [filed[2]]);
    assert_eq!(list("/returns?review=required&order_id=1").await, [0; 0]);
    let wrong = api.get("/returns?review=yes", &api.admin_token()).await;
    let problem = wrong.problem(422, "invalid-fields");
    assert_eq!(problem["errors"][0]["parameter"], "review");
    api.stop().await;
}
