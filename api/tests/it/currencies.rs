//! Amounts follow their currency: ISO 4217 says how many decimal places it has. What a currency cannot express is refused.

use serde_json::{Value, json};

use crate::harness::{Api, CUSTOMER};

/// Total, what the shop has refunded, and the currency of an order.
type Amounts = (&'static str, &'static str, &'static str);

/// A delivered order of the usual customer.
async fn add(api: &Api, id: i64, (total, refunded, currency): Amounts) {
    api.db.seed_orders(id, 1, CUSTOMER).await;
    sqlx::query("UPDATE orders SET total = ?, refunded_amount = ?, currency = ? WHERE id = ?")
        .bind(total)
        .bind(refunded)
        .bind(currency)
        .bind(id)
        .execute(&api.db.pool)
        .await
        .expect("an order");
}

/// The customer's order with the highest id.
async fn newest(api: &Api) -> Value {
    let page = api.get("/orders", &api.customer_token()).await;
    assert_eq!(page.status, 200);
    page.json()["items"][0].clone()
}

async fn filed(api: &Api, order: i64) -> Value {
    let id = api.file(order).await.return_id();
    let path = format!("/returns/{id}");
    api.get(&path, &api.customer_token()).await.json()
}

#[tokio::test]
async fn p5_an_amount_that_its_currency_cannot_express_is_refused_at_filing() {
    let api = Api::start().await;
    let orders = [
        ("705.5", "0", "JPY"),
        ("49.995", "0", "EUR"),
        ("49.90", "0.005", "EUR"),
        ("1.0001", "0", "BHD"),
        ("49.90", "0", "eur"),
        ("49.90", "0", "EU"),
        ("49.90", "0", ""),
        ("49.90", "0", "???"),
        ("49.90", "0", "QQQ"),
        // Gold has no minor unit.
        ("49", "0", "XAU"),
    ];
    for (id, order) in (1..).zip(orders) {
        add(&api, id, order).await;
        let problem = api.file(id).await.problem(422, "not-eligible");
        assert_eq!(
            problem["violations"],
            json!(["amount_not_payable"]),
            "{order:?}"
        );
        let shown = newest(&api).await;
        assert_eq!(shown["reasons"], json!(["amount_not_payable"]));
        assert_eq!(shown["total"]["currency"], order.2, "as the shop wrote it");
    }
    api.stop().await;
}

#[tokio::test]
async fn an_amount_has_the_decimal_places_of_its_currency() {
    let api = Api::start().await;
    let orders = [
        (("705", "0", "JPY"), "705"),
        (("49.9", "0", "EUR"), "49.90"),
        (("1.5", "0", "BHD"), "1.500"),
    ];
    for (id, (order, text)) in (1..).zip(orders) {
        add(&api, id, order).await;
        let expected = json!({"amount": text, "currency": order.2});
        assert_eq!(newest(&api).await["total"], expected);
        assert_eq!(filed(&api, id).await["refund"], expected);
    }
    api.stop().await;
}

/// A day of delivery that is none counts as "not delivered"; the orders beside it are read.
#[tokio::test]
async fn an_order_with_a_day_of_zeros_is_not_delivered() {
    let api = Api::start().await;
    api.db.seed_orders(1, 2, CUSTOMER).await;
    let mut shop = api.db.pool.acquire().await.expect("a session");
    for sql in [
        "SET SESSION sql_mode = ''",
        "UPDATE orders SET delivered_at = '0000-00-00' WHERE id = 2",
    ] {
        sqlx::query(sql).execute(&mut *shop).await.expect(sql);
    }
    let page = api.get("/orders", &api.customer_token()).await;
    assert_eq!(page.status, 200);
    let items = page.json()["items"].clone();
    assert_eq!(items[0]["reasons"], json!(["order_not_delivered"]));
    assert_eq!(items[1]["reasons"], json!([]));
    let problem = api.file(2).await.problem(422, "not-eligible");
    assert_eq!(problem["violations"], json!(["order_not_delivered"]));
    assert_eq!(api.file(1).await.status, 201);
    drop(shop);
    api.stop().await;
}

#[tokio::test]
async fn a_refund_above_the_limit_of_its_currency_waits_for_review() {
    let api = Api::start_with(&["--review-above-amount", "EUR:100,JPY:15000"]).await;
    let orders = [
        (("100", "0", "EUR"), false),
        (("100.01", "0", "EUR"), true),
        (("15000", "0", "JPY"), false),
        (("15001", "0", "JPY"), true),
        // Without a limit nobody has said that it is small.
        (("0.01", "0", "USD"), true),
    ];
    for (id, (order, reviewed)) in (1..).zip(orders) {
        add(&api, id, order).await;
        let filed = filed(&api, id).await;
        assert_eq!(filed["review_required"], reviewed, "{order:?}");
    }
    api.stop().await;
}
