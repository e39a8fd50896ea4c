//! Another session holds rows for long, as a shop's batch job or a forgotten client does: only the returns of these rows
//! wait.

use refund_consumer::app::Drain;
use shared::domain::ids::{OrderId, ReturnId};
use shared::test_support::keep_when_silent;
use sqlx::{MySql, Transaction};

use crate::harness::fake::{Fake, Step};
use crate::harness::{World, until, until_true};

const LOCK_FOR_UPDATE: &str = "SELECT id FROM orders WHERE id = ? FOR UPDATE";
/// A claim, which shares the order, goes on; the settlement, which writes it, waits.
const LOCK_FOR_SHARE: &str = "SELECT id FROM orders WHERE id = ? FOR SHARE";

async fn hold(world: &World, lock: &'static str, order: OrderId) -> Transaction<'static, MySql> {
    let mut holder = world.db.pool.begin().await.expect("begin");
    keep_when_silent(&mut holder).await;
    let held = sqlx::query(lock).bind(order).fetch_all(&mut *holder).await;
    assert_eq!(held.expect("locked").len(), 1);
    holder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_a_held_order_stops_no_other_claim() {
    let world = World::new().await;
    let filed = world.file_all(1..=5, false).await;
    let (held, others) = filed.split_last().expect("five");
    let holder = hold(&world, LOCK_FOR_UPDATE, held.order_id).await;
    for one in &filed {
        world.announce(one).await;
    }
    // A bad record about the held return becomes a dead letter, once.
    let other_order = format!(r#"{{"return_id":{},"order_id":4}}"#, held.return_id);
    world.send(None, Some(other_order.as_bytes()), &[]).await;
    let flags = ["--initiated-grace-secs=3600"];
    let one = world.start(world.simulated(), &flags).await;
    for other in others {
        world.wait_for(other.return_id, "refunded").await;
    }
    let left = || {
        one.metrics
            .intake
            .messages
            .with_label_values(&["left"])
            .get()
            == 1
    };
    until_true("the held return was left to the scan", left).await;
    assert_eq!(world.status(held.return_id).await.0, "initiated");
    until_true("the bad record is kept", || {
        one.messages("dead_letter") == 1
    })
    .await;
    assert_eq!(world.count("SELECT COUNT(*) FROM dead_letters").await, 1);
    // A wait would have ended after 5 s with error 1205.
    let again = &one.metrics.work.transient_failures;
    assert_eq!(again.with_label_values(&["claim"]).get(), 0);
    one.stop().await;

    holder.rollback().await.expect("rollback");
    let flags = ["--initiated-grace-secs=0"];
    let two = world.start(world.simulated(), &flags).await;
    world.wait_for(held.return_id, "refunded").await;
    assert_eq!(world.effects(), 5);
    two.stop().await;
}

/// The provider's response is not forgotten meanwhile: this provider would not report it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p5_p6_a_held_order_stops_no_other_settlement() {
    let world = World::new().await;
    let gateway = Fake::without_keys(&[]);
    gateway.find_is_blind();
    let filed = world.file_all(1..=5, false).await;
    let (held, others) = filed.split_last().expect("five");
    let holder = hold(&world, LOCK_FOR_SHARE, held.order_id).await;
    for one in &filed {
        world.announce(one).await;
    }
    let flags = ["--call-deadline-ms=4000", "--initiated-grace-secs=3600"];
    let consumer = world.start(gateway.clone(), &flags).await;
    for other in others {
        world.wait_for(other.return_id, "refunded").await;
    }
    until("the time to call has passed", || async {
        let passed = world.count(
            "SELECT COUNT(*) FROM refunds WHERE state = 'sent' AND call_deadline < UTC_TIMESTAMP(6)",
        );
        (passed.await == 1).then_some(())
    })
    .await;
    assert_eq!(world.status(held.return_id).await.0, "refund_pending");
    holder.rollback().await.expect("rollback");
    world.wait_for(held.return_id, "refunded").await;
    assert_eq!(gateway.effects().len(), 5);
    let key = format!("refund-{}-1", held.event_id);
    let look_ups = gateway.looked_up().into_iter().filter(|one| *one == key);
    assert_eq!(look_ups.count(), 1, "only before it was sent");
    let settlements = &consumer.metrics.gateway.settlements;
    assert!(settlements.with_label_values(&["held"]).get() > 1);
    consumer.stop().await;
}

/// Our programs lock an attempt alone only for milliseconds; a person with a MySQL client may hold it for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_a_held_attempt_stops_no_other_settlement() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[Step::Hold, Step::Hold, Step::Hold]);
    let filed = world.file_all(1..=3, false).await;
    for one in &filed {
        world.announce(one).await;
    }
    let consumer = world.start(gateway.clone(), &[]).await;
    until_true("all are at the gateway", || gateway.submitted().len() == 3).await;
    let (held, others) = filed.split_last().expect("three");
    let mut holder = world.db.pool.begin().await.expect("begin");
    keep_when_silent(&mut holder).await;
    sqlx::query("SELECT state FROM refunds WHERE return_id = ? FOR UPDATE")
        .bind(held.return_id)
        .fetch_one(&mut *holder)
        .await
        .expect("an attempt");
    gateway.let_go();
    for other in others {
        world.wait_for(other.return_id, "refunded").await;
    }
    assert_eq!(world.status(held.return_id).await.0, "refund_pending");
    holder.rollback().await.expect("rollback");
    world.wait_for(held.return_id, "refunded").await;
    assert_eq!(gateway.effects().len(), 3);
    consumer.stop().await;
}

/// More responses wait than a scan's page holds. They are due by now, and must not hide attempts that other processes
/// have left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_waiting_responses_do_not_hide_due_attempts() {
    let world = World::new().await;
    let filed = world.file_all(1..=120, false).await;
    let orphan = world.file(121).await;
    for one in &filed {
        world.announce(one).await;
    }
    let mut holder = world.db.pool.begin().await.expect("begin");
    keep_when_silent(&mut holder).await;
    // A shared lock is set only on the index that is read. With a covering index, the rows would not be locked.
    sqlx::query("SELECT id FROM orders FORCE INDEX (PRIMARY) WHERE id <= 120 FOR SHARE")
        .fetch_all(&mut *holder)
        .await
        .expect("orders");
    let flags = ["--initiated-grace-secs=3600"];
    let consumer = world.start(world.simulated(), &flags).await;
    until_true("all are paid", || world.effects() == 120).await;
    // The test moves the deadlines instead of waiting. A success is written even if another process owns the attempt.
    let due = sqlx::query(
        "UPDATE refunds SET call_deadline = UTC_TIMESTAMP(6), next_check_at = UTC_TIMESTAMP(6) WHERE state = 'claimed'",
    )
    .execute(&world.db.pool)
    .await
    .expect("attempts");
    assert_eq!(due.rows_affected(), 120, "all responses wait");
    leave_behind(&world, orphan.return_id).await;
    world.wait_for(orphan.return_id, "refunded").await;
    holder.rollback().await.expect("rollback");
    for one in &filed {
        world.wait_for(one.return_id, "refunded").await;
    }
    assert_eq!(world.effects(), 121);
    consumer.stop().await;
}

/// Leaves an attempt as a consumer does that is killed between claim and call.
async fn leave_behind(world: &World, id: ReturnId) {
    for set in [
        "UPDATE returns SET status = 'refund_pending' WHERE id = ?",
        "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, created_at, \
         updated_at) SELECT id, 1, CONCAT('refund-', id), refund_amount, currency, 'claimed', UTC_TIMESTAMP(6), \
         UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM returns WHERE id = ?",
    ] {
        world.execute(set, id.0).await;
    }
}

/// If the rows are freed while the consumer drains, it is written. If not, it is left to a look-up, and the drain
/// still ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p11_a_response_that_waits_for_held_rows_is_written_while_draining() {
    for (freed, drain) in [
        (true, "--consumer-drain-secs=60"),
        (false, "--consumer-drain-secs=10"),
    ] {
        let world = World::new().await;
        let filed = world.file(1).await;
        let holder = hold(&world, LOCK_FOR_SHARE, filed.order_id).await;
        world.announce(&filed).await;
        let consumer = world.start(world.simulated(), &[drain]).await;
        let settlements = consumer.metrics.gateway.settlements.clone();
        let held = || settlements.with_label_values(&["held"]).get();
        until_true("the response waits", || held() > 0).await;
        consumer.ask_to_stop();
        let before = held();
        until_true("it is tried again while stopping", || held() > before + 1).await;
        if freed {
            holder.rollback().await.expect("rollback");
            assert_eq!(consumer.stop().await, Drain::Complete);
            assert_eq!(world.status(filed.return_id).await.0, "refunded");
        } else {
            assert_eq!(consumer.stop().await, Drain::LeftOpen(1));
            assert_eq!(world.status(filed.return_id).await.0, "refund_pending");
        }
        assert_eq!(world.effects(), 1);
    }
}
