//! The shop copies its orders as whole rows, also while a refund is under way. What was refunded here must still count.

use refund_consumer::gateway::RefundStatus;
use serde_json::json;
use shared::domain::transition::Filed;

use crate::harness::fake::{Fake, Step};
use crate::harness::{Running, World, until, until_true};

const ORDER: i64 = 1;

/// Writes the whole row of the order, of which the shop itself has refunded nothing.
async fn sync(world: &World) {
    world
        .execute(
            "INSERT INTO orders (id, customer_id, total, currency, status, delivered_at, refunded_amount) \
             VALUES (?, 42, 49.90, 'EUR', 'delivered', UTC_TIMESTAMP(6) - INTERVAL 3 DAY, 0) AS new \
             ON DUPLICATE KEY UPDATE customer_id = new.customer_id, total = new.total, currency = new.currency, \
             status = new.status, delivered_at = new.delivered_at, refunded_amount = new.refunded_amount",
            ORDER,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_refund_counts_after_the_shop_has_rewritten_the_order() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[Step::Hold]));
    let running = world.start(gateway.clone(), &[]).await;
    let first = world.file(ORDER).await;
    world.announce(&first).await;
    until_true("it is claimed", || gateway.submitted().len() == 1).await;
    sync(&world).await;
    gateway.let_go();
    world.wait_for(first.return_id, "refunded").await;
    sync(&world).await;

    let second = world.file_again(&first).await;
    world.announce(&second).await;
    world.wait_for(second.return_id, "rejected").await;
    let events = world.audited(second.return_id).await;
    assert_eq!(events[1].data["reasons"], json!(["already_refunded"]));
    assert_eq!(gateway.effects().len(), 1);
    assert_eq!(world.refunded_amount(first.order_id).await, "49.9000");
    let written = "SELECT COUNT(*) FROM orders WHERE refunded_amount <> 0";
    assert_eq!(world.count(written).await, 0, "the column is the shop's");
    running.stop().await;
}

/// The shop hears of the refund before we do, and counts it in its own column. The payment is the one that was promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_payment_is_settled_although_the_shop_has_written_its_order_down() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[Step::Pend]));
    let running = world.start(gateway.clone(), &[]).await;
    let filed = world.file(ORDER).await;
    world.announce(&filed).await;
    until_true("it is sent", || gateway.submitted().len() == 1).await;
    until("it is pending", || async {
        world.attempt_state(filed.return_id, 1).await == "pending"
    })
    .await;
    write_down(&world).await;
    gateway.settle(&gateway.submitted()[0], RefundStatus::Succeeded);
    until("it is settled", || async {
        world.attempt_state(filed.return_id, 1).await != "pending"
    })
    .await;
    assert_eq!(world.status(filed.return_id).await.0, "refunded");
    let counted = &running.metrics.gateway.settlements;
    let counted = counted.with_label_values(&["refunded_beside_shop"]);
    assert_eq!(counted.get(), 1, "the customer may have the money twice");
    running.stop().await;
}

/// A consumer whose only attempt waits: its call came to the end of `step`, and nothing can be looked up yet.
async fn waits(world: &World, step: Step) -> (Running, Fake, Filed) {
    let gateway = Fake::with_keys(&[step]);
    gateway.find_fails(true);
    let running = world.start(gateway.clone(), &[]).await;
    let filed = world.file(ORDER).await;
    world.announce(&filed).await;
    until_true("it was taken over", || !gateway.looked_up().is_empty()).await;
    (running, gateway, filed)
}

/// Support pays by hand, and the shop writes the order down.
async fn write_down(world: &World) {
    let paid = "UPDATE orders SET refunded_amount = total WHERE id = ?";
    world.execute(paid, ORDER).await;
}

/// The provider is away for long, and support does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_what_was_never_sent_is_not_sent_for_an_order_that_was_written_down() {
    let world = World::new().await;
    let (running, gateway, filed) = waits(&world, Step::Unreachable).await;
    write_down(&world).await;
    gateway.find_fails(false);
    until("it is settled", || async {
        world.attempt_state(filed.return_id, 1).await != "claimed"
    })
    .await;
    assert_eq!(world.attempt_state(filed.return_id, 1).await, "parked");
    let events = world.audited(filed.return_id).await;
    assert_eq!(events.last().expect("events").data["reason"], "not_covered");
    assert_eq!(gateway.submitted().len(), 1, "the one that did not arrive");
    running.stop().await;
}

/// It may have been sent, so the order may be written down because of it: it is looked up, and not sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_what_may_have_been_sent_is_not_repeated_for_an_order_that_was_written_down() {
    let world = World::new().await;
    let (running, gateway, filed) = waits(&world, Step::Lose).await;
    write_down(&world).await;
    gateway.find_fails(false);
    until("it is settled", || async {
        world.attempt_state(filed.return_id, 1).await != "unknown"
    })
    .await;
    assert_eq!(world.attempt_state(filed.return_id, 1).await, "parked");
    let events = world.audited(filed.return_id).await;
    assert_eq!(events.last().expect("events").data["reason"], "not_found");
    assert_eq!(gateway.submitted().len(), 1);
    running.stop().await;
}

/// The claim was seconds ago, and the provider's rate limit has made it wait since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_what_has_waited_for_its_turn_is_not_sent_for_an_order_that_was_written_down() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[]));
    gateway.admit_none(true);
    let running = world.start(gateway.clone(), &[]).await;
    let filed = world.file(ORDER).await;
    world.announce(&filed).await;
    world.wait_for(filed.return_id, "refund_pending").await;
    write_down(&world).await;
    until("its claim is seconds ago", || async {
        let claimed =
            "SELECT COUNT(*) FROM refunds WHERE created_at < UTC_TIMESTAMP(6) - INTERVAL 3 SECOND";
        world.count(claimed).await == 1
    })
    .await;
    gateway.admit_none(false);
    until("it is settled", || async {
        world.attempt_state(filed.return_id, 1).await != "claimed"
    })
    .await;
    assert_eq!(world.attempt_state(filed.return_id, 1).await, "parked");
    assert!(gateway.submitted().is_empty());
    running.stop().await;
}

/// The same amount must not be counted twice, also if another return was refunded first: a person has to take one payment back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_refund_beside_one_that_was_settled_meanwhile_waits_for_a_person() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[Step::Hold]));
    let running = world.start(gateway.clone(), &[]).await;
    let first = world.file(ORDER).await;
    world.announce(&first).await;
    until_true("it is claimed", || gateway.submitted().len() == 1).await;
    world
        .execute(
            "INSERT INTO returns (order_id, customer_id, reason, status, version, policy_version, refund_amount, currency, \
             created_at, updated_at) VALUES (?, 42, 'x', 'refunded', 1, 'x', 49.90, 'EUR', UTC_TIMESTAMP(6), \
             UTC_TIMESTAMP(6))",
            ORDER,
        )
        .await;
    gateway.let_go();
    until("it is parked", || async {
        world.attempt_state(first.return_id, 1).await == "parked"
    })
    .await;
    let events = world.audited(first.return_id).await;
    let last = events.last().expect("events");
    assert_eq!(last.data["reason"], "paid_more_than_order_total");
    running.stop().await;
}
