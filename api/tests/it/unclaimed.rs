//! The age of the oldest return that no consumer has claimed. No consumer runs here.

use shared::test_support::mysql_proxy::{Cut, MysqlProxy};
use sqlx::{AssertSqlSafe, Executor};

use crate::harness::{Api, CUSTOMER, until};

const AGE: &str = "returns_oldest_unclaimed_seconds";

async fn until_age(api: &Api, what: &str, fits: impl Fn(f64) -> bool) {
    let deadline = std::time::Duration::from_secs(20);
    until(what, deadline, async || fits(api.metric(AGE).await)).await;
}

async fn execute(api: &Api, sql: &str) {
    let done = api.db.pool.execute(AssertSqlSafe(sql.to_owned())).await;
    done.expect(sql);
}

/// An api that starts finds returns of any age: three that nobody has claimed, and one of them waits for a review.
#[tokio::test]
async fn p6_the_oldest_unclaimed_return_is_the_oldest_that_waits_for_a_consumer() {
    let api = Api::start().await;
    api.db.seed_orders(1, 4, CUSTOMER).await;
    assert_eq!(api.metric(AGE).await, 0.0, "there is none");
    for order in 1..=3 {
        assert_eq!(api.file(order).await.status, 201);
    }
    execute(
        &api,
        "UPDATE returns SET updated_at = updated_at - INTERVAL order_id HOUR, review_required = (order_id = 3)",
    )
    .await;
    let db = api.stop_and_keep_db().await.0;
    let url = db.url().to_owned();
    let api = Api::start_on(db, &url, &[]).await;
    let about = |hours: f64| move |age: f64| (age - hours * 3_600.0).abs() < 60.0;
    until_age(&api, "two hours", about(2.0)).await;

    execute(
        &api,
        "UPDATE returns SET status = 'refund_pending' WHERE order_id = 2",
    )
    .await;
    until_age(&api, "one hour", about(1.0)).await;
    execute(
        &api,
        "UPDATE returns SET status = 'rejected' WHERE order_id = 1",
    )
    .await;
    until_age(&api, "none", |age| age == 0.0).await;
    assert_eq!(api.file(4).await.status, 201);
    until_age(&api, "the new one", |age| age > 0.0).await;
    api.stop().await;
}

/// MySQL answers everything but this.
#[tokio::test]
async fn p6_the_age_grows_while_it_cannot_be_read() {
    let db = shared::test_support::TestDb::create().await;
    let (proxy, url) = MysqlProxy::before(db.url()).await;
    proxy.arm_at_each("/* oldest_unclaimed */", Cut::FrozenAfterServer);
    let api = Api::start_on(db, &url, &[]).await;
    until_age(&api, "nobody knows", |age| age > 15.0).await;
    proxy.disarm();
    until_age(&api, "there is none", |age| age == 0.0).await;
    api.stop().await;
}
