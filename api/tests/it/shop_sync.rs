//! The shop copies its orders here as whole rows, again and again. What this system has refunded must not depend on it.

use serde_json::{Value, json};
use shared::domain::status::Action;
use shared::test_support::TestDb;

use crate::harness::{Api, CUSTOMER};
use crate::moves;

const REFUNDED: [Action; 3] = [Action::Approve, Action::Claim, Action::Confirm];

/// Writes the whole row as the shop has it: of an order that cost 49.90 EUR the shop itself has refunded `amount`.
async fn sync(db: &TestDb, order: i64, amount: &str) {
    sqlx::query(
        "INSERT INTO orders (id, customer_id, total, currency, status, delivered_at, refunded_amount) \
         VALUES (?, ?, 49.90, 'EUR', 'delivered', UTC_TIMESTAMP(6) - INTERVAL 3 DAY, ?) AS new \
         ON DUPLICATE KEY UPDATE customer_id = new.customer_id, total = new.total, currency = new.currency, \
         status = new.status, delivered_at = new.delivered_at, refunded_amount = new.refunded_amount",
    )
    .bind(order)
    .bind(CUSTOMER)
    .bind(amount)
    .execute(&db.pool)
    .await
    .expect("the shop's row");
}

/// The customer's order with the highest id.
async fn newest(api: &Api) -> Value {
    let page = api.get("/orders", &api.customer_token()).await.json();
    page["items"][0].clone()
}

#[tokio::test]
async fn p5_an_order_is_not_returnable_again_after_the_shop_has_rewritten_its_row() {
    let api = Api::start().await;
    for (order, by_the_shop) in [(1, "0"), (2, "10")] {
        sync(&api.db, order, by_the_shop).await;
        let id = api.file(order).await.return_id();
        moves::change(&api.db, id, &REFUNDED).await;
        sync(&api.db, order, by_the_shop).await;

        let problem = api.file(order).await.problem(422, "not-eligible");
        assert_eq!(problem["violations"], json!(["already_refunded"]));
        let order = newest(&api).await;
        assert_eq!(
            (&order["returnable"], &order["reasons"]),
            (&json!(false), &json!(["already_refunded"]))
        );
        assert_eq!(
            order["refunded"],
            json!({"amount": "49.90", "currency": "EUR"})
        );
    }
    api.stop().await;
}

/// The shop has refunded a part itself: the rest is refunded here, and both together are the order's total.
#[tokio::test]
async fn p5_what_the_shop_has_refunded_is_not_refunded_again() {
    let api = Api::start().await;
    sync(&api.db, 1, "10").await;
    let id = api.file(1).await.return_id();
    let token = api.customer_token();
    let filed = api.get(&format!("/returns/{id}"), &token).await.json();
    assert_eq!(
        filed["refund"],
        json!({"amount": "39.90", "currency": "EUR"})
    );
    let order = newest(&api).await;
    assert_eq!(order["refunded"]["amount"], "10.00");
    moves::change(&api.db, id, &REFUNDED).await;
    // The shop counts our refund too: together it is more than the total, and nothing more is refunded.
    sync(&api.db, 1, "49.90").await;
    assert_eq!(newest(&api).await["refunded"]["amount"], "49.90");
    api.file(1).await.problem(422, "not-eligible");
    api.stop().await;
}

/// A refund in another currency cannot be subtracted from the total: the order counts as refunded.
#[tokio::test]
async fn p5_an_order_whose_currency_was_rewritten_after_its_refund_is_not_returnable() {
    let api = Api::start().await;
    sync(&api.db, 1, "0").await;
    let id = api.file(1).await.return_id();
    moves::change(&api.db, id, &REFUNDED).await;
    sqlx::query("UPDATE orders SET currency = 'USD', total = 500")
        .execute(&api.db.pool)
        .await
        .expect("another currency");
    let problem = api.file(1).await.problem(422, "not-eligible");
    assert_eq!(problem["violations"], json!(["already_refunded"]));
    api.stop().await;
}
