//! Somebody else holds rows for long, as a shop's batch job or a forgotten client does: only their returns wait.

use shared::ids::OrderId;
use sqlx::{MySql, Transaction};

use crate::harness::{World, until_true};

const LOCK_FOR_UPDATE: &str = "SELECT id FROM orders WHERE id = ? FOR UPDATE";
/// Lets a claim pass, which shares the order, and stops the settlement, which writes it.
const LOCK_FOR_SHARE: &str = "SELECT id FROM orders WHERE id = ? FOR SHARE";

async fn hold(world: &World, lock: &'static str, order: OrderId) -> Transaction<'static, MySql> {
    let mut holder = world.db.pool.begin().await.expect("begin");
    let held = sqlx::query(lock).bind(order).fetch_all(&mut *holder).await;
    assert_eq!(held.expect("locked").len(), 1);
    holder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_an_order_that_somebody_holds_stops_no_other_claim() {
    let world = World::new().await;
    let filed = world.file_all(1..=5, false).await;
    let (held, others) = filed.split_last().expect("five");
    let holder = hold(&world, LOCK_FOR_UPDATE, held.order_id).await;
    for one in &filed {
        world.announce(one).await;
    }
    let flags = ["--initiated-grace-secs=3600"];
    let one = world.start(world.simulated(), &flags).await;
    for other in others {
        world.wait_for(other.return_id, "refunded").await;
    }
    let left = || one.metrics.messages.with_label_values(&["left"]).get() == 1;
    until_true("the held one was left to the scan", left).await;
    assert_eq!(world.status(held.return_id).await.0, "initiated");
    one.stop().await;

    holder.rollback().await.expect("rollback");
    let flags = ["--initiated-grace-secs=0"];
    let two = world.start(world.simulated(), &flags).await;
    world.wait_for(held.return_id, "refunded").await;
    assert_eq!(world.effects(), 5);
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p5_p6_an_order_that_somebody_holds_stops_no_other_settlement() {
    let world = World::new().await;
    let filed = world.file_all(1..=5, false).await;
    let (held, others) = filed.split_last().expect("five");
    let holder = hold(&world, LOCK_FOR_SHARE, held.order_id).await;
    for one in &filed {
        world.announce(one).await;
    }
    let flags = ["--call-deadline-ms=2000"];
    let consumer = world.start(world.simulated(), &flags).await;
    for other in others {
        world.wait_for(other.return_id, "refunded").await;
    }
    assert_eq!(world.status(held.return_id).await.0, "refund_pending");
    holder.rollback().await.expect("rollback");
    world.wait_for(held.return_id, "refunded").await;
    assert_eq!(world.effects(), 5);
    consumer.stop().await;
}
