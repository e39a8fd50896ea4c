//! A failover lost the commit of an attempt that was sent and paid: its return looks as if nobody had claimed it.

use refund_consumer::gateway::{RefundGateway, RefundRequest};
use shared::domain::money::{Currency, Money};
use shared::domain::refund::ProviderKey;

use crate::harness::World;
use crate::harness::fake::Fake;

/// Pays the first attempt of a return that was filed `secs` ago, and forgets it; then a consumer finds the return. Returns
/// the keys that it looked up.
async fn claimed_again(gateway: &Fake, secs: i64, flags: &[&str]) -> Vec<String> {
    let world = World::new().await;
    let filed = world.file(1).await;
    sqlx::query("UPDATE returns SET created_at = UTC_TIMESTAMP(6) - INTERVAL ? SECOND")
        .bind(secs)
        .execute(&world.db.pool)
        .await
        .expect("an age");
    let key = format!("refund-{}-1", filed.event_id);
    let lost = RefundRequest {
        key: ProviderKey(key.clone()),
        amount: Money::new(
            "49.90".parse().expect("a decimal"),
            Currency::parse("EUR").expect("a code"),
        ),
        sent_before: 0,
    };
    gateway.submit(&lost).await.expect("paid");
    let running = world.start(gateway.clone(), flags).await;
    world.announce(&filed).await;
    world.wait_for(filed.return_id, "refunded").await;
    running.stop().await;
    assert_eq!(gateway.effects(), [key], "paid once");
    gateway.looked_up()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_without_keys_an_attempt_that_a_failover_lost_is_found_and_not_paid_again() {
    let gateway = Fake::without_keys(&[]);
    let looked_up = claimed_again(&gateway, 1, &[]).await;
    assert_eq!((looked_up.len(), gateway.submitted().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_the_key_makes_the_repeat_of_a_lost_attempt_harmless_only_within_its_lifetime() {
    let gateway = Fake::with_keys(&[]);
    let looked_up = claimed_again(&gateway, 30, &[]).await;
    assert_eq!((looked_up.len(), gateway.submitted().len()), (0, 2));

    let gateway = Fake::with_keys(&[]);
    let flags = ["--idempotency-window-secs=30", "--call-deadline-ms=3000"];
    let looked_up = claimed_again(&gateway, 30, &flags).await;
    assert_eq!((looked_up.len(), gateway.submitted().len()), (1, 1));
}
