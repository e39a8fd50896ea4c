//! A refund that was paid, and that the provider takes back later.

use refund_consumer::gateway::RefundStatus;
use shared::domain::ids::ReturnId;
use shared::domain::transition::Filed;

use crate::claims::approve;
use crate::harness::decisions::retry;
use crate::harness::fake::{Fake, Step};
use crate::harness::{Running, World, types, until, until_true};

fn reversed() -> RefundStatus {
    RefundStatus::Declined {
        code: "account_closed".to_owned(),
    }
}

/// A consumer, its provider, and one refunded return.
async fn refunded(world: &World) -> (Running, Fake, Filed) {
    let gateway = Fake::with_keys(&[]);
    let running = world.start(gateway.clone(), &[]).await;
    let filed = world.file(1).await;
    world.announce(&filed).await;
    world.wait_for(filed.return_id, "refunded").await;
    (running, gateway, filed)
}

/// The next look-up is due, as if its time had passed.
async fn time_passes(world: &World, id: ReturnId) {
    world
        .execute(
            "UPDATE refunds SET recheck_at = UTC_TIMESTAMP(6) WHERE return_id = ? AND state = 'succeeded'",
            id.0,
        )
        .await;
}

/// Waits until a due look-up was made. Returns when the next one is, in hours after the payment.
async fn looked_up(world: &World, id: ReturnId) -> Option<i64> {
    until("it was looked up", || async {
        let due = "SELECT COUNT(*) FROM refunds WHERE recheck_at <= UTC_TIMESTAMP(6) OR owner IS NOT NULL";
        world.count(due).await == 0
    })
    .await;
    sqlx::query_scalar(
        "SELECT TIMESTAMPDIFF(MINUTE, succeeded_at, recheck_at) DIV 60 FROM refunds WHERE return_id = ? AND attempt = 1",
    )
    .bind(id)
    .fetch_one(&world.db.pool)
    .await
    .expect("an attempt")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_refund_that_the_provider_takes_back_is_refund_failed_and_can_be_retried() {
    let world = World::new().await;
    let (running, gateway, filed) = refunded(&world).await;
    gateway.settle(&gateway.effects()[0], reversed());
    time_passes(&world, filed.return_id).await;
    world.wait_for(filed.return_id, "refund_failed").await;

    let events = world.audited(filed.return_id).await;
    let last = events.last().expect("events");
    assert_eq!(last.event_type, "refund.reversed");
    assert_eq!(
        last.actor,
        ("system".to_owned(), "refund-consumer".to_owned())
    );
    assert_eq!(last.data["code"], "account_closed");
    assert_eq!(world.attempt_state(filed.return_id, 1).await, "reversed");
    assert_eq!(world.refunded_amount(filed.order_id).await, "0.0000");
    let counted = running
        .metrics
        .gateway
        .settlements
        .with_label_values(&["reversed"]);
    assert_eq!(counted.get(), 1);

    retry(&world, &filed).await;
    world.wait_for(filed.return_id, "refunded").await;
    assert_eq!(world.attempt_state(filed.return_id, 2).await, "succeeded");
    assert_eq!(gateway.effects().len(), 2, "paid, taken back, paid again");
    assert_eq!(world.refunded_amount(filed.order_id).await, "49.9000");
    running.stop().await;
}

/// The provider has made up its mind again: only a person may decide, and nothing is paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_reversal_that_is_withdrawn_stops_the_retry() {
    let world = World::new().await;
    let (running, gateway, filed) = refunded(&world).await;
    let key = gateway.effects().remove(0);
    gateway.settle(&key, reversed());
    time_passes(&world, filed.return_id).await;
    world.wait_for(filed.return_id, "refund_failed").await;
    gateway.settle(&key, RefundStatus::Succeeded);
    retry(&world, &filed).await;
    until("attempt 2 is parked", || async {
        world.attempt_state(filed.return_id, 2).await == "parked"
    })
    .await;
    assert_eq!(gateway.submitted(), [key]);
    let events = world.audited(filed.return_id).await;
    assert_eq!(
        events.last().expect("events").data["reason"],
        "reversal_withdrawn"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paid_refund_is_looked_up_at_growing_distances() {
    let world = World::new().await;
    let (running, _, filed) = refunded(&world).await;
    assert_eq!(looked_up(&world, filed.return_id).await, Some(1));
    for (passed_days, next_hours) in [
        (0, Some(1)),
        (2, Some(3 * 24)),
        (20, Some(30 * 24)),
        (31, None),
    ] {
        sqlx::query(
            "UPDATE refunds SET recheck_at = UTC_TIMESTAMP(6), succeeded_at = UTC_TIMESTAMP(6) - INTERVAL ? DAY WHERE return_id = ?",
        )
        .bind(passed_days)
        .bind(filed.return_id)
        .execute(&world.db.pool)
        .await
        .expect("time passes");
        assert_eq!(
            looked_up(&world, filed.return_id).await,
            next_hours,
            "{passed_days}"
        );
    }
    assert_eq!(
        world.audited(filed.return_id).await.len(),
        4,
        "no news, no event"
    );
    running.stop().await;
}

/// An archived refund is "not found", too, and so is every refund while the address is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_refund_that_is_not_found_is_reported_once_and_stays_refunded() {
    let world = World::new().await;
    let (running, gateway, filed) = refunded(&world).await;
    gateway.forget_everything();
    for _ in 0..2 {
        time_passes(&world, filed.return_id).await;
        assert_eq!(looked_up(&world, filed.return_id).await, Some(1));
    }
    let events = world.audited(filed.return_id).await;
    assert_eq!(types(&events)[4..], ["refund.answer_disagreed"]);
    assert_eq!(events[4].data["answer"], "not_found");
    assert_eq!(world.status(filed.return_id).await.0, "refunded");
    running.stop().await;
}

/// Only one return of an order may be open (a unique index).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reversal_waits_while_another_return_of_its_order_is_open() {
    let world = World::new().await;
    let (running, gateway, filed) = refunded(&world).await;
    let other = world.file_again(&filed).await;
    gateway.settle(&gateway.effects()[0], reversed());
    time_passes(&world, filed.return_id).await;
    assert_eq!(looked_up(&world, filed.return_id).await, Some(1));
    assert_eq!(world.status(filed.return_id).await.0, "refunded");
    let events = world.audited(filed.return_id).await;
    assert_eq!(
        events.last().expect("events").data["answer"],
        "reversed_order_has_open_return"
    );
    world
        .execute(
            "UPDATE returns SET status = 'rejected' WHERE id = ?",
            other.return_id.0,
        )
        .await;
    time_passes(&world, filed.return_id).await;
    world.wait_for(filed.return_id, "refund_failed").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refunds_of_another_gateway_are_not_looked_up() {
    let world = World::new().await;
    let (running, gateway, filed) = refunded(&world).await;
    gateway.settle(&gateway.effects()[0], reversed());
    world
        .execute(
            "UPDATE refunds SET gateway = 'other' WHERE return_id = ?",
            filed.return_id.0,
        )
        .await;
    time_passes(&world, filed.return_id).await;
    let plain = world.file(2).await;
    world.announce(&plain).await;
    world.wait_for(plain.return_id, "refunded").await;
    time_passes(&world, plain.return_id).await;
    until("the other one was looked up", || async {
        let due = "SELECT COUNT(*) FROM refunds WHERE recheck_at <= UTC_TIMESTAMP(6)";
        world.count(due).await == 1
    })
    .await;
    assert_eq!(world.status(filed.return_id).await.0, "refunded");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_look_ups_that_no_consumer_makes_are_counted_for_every_account() {
    let world = World::new().await;
    paid(&world, 1..=3).await;
    for due in [
        "UPDATE refunds SET gateway = 'other', recheck_at = UTC_TIMESTAMP(6) - INTERVAL 3 HOUR WHERE return_id = ?",
        "UPDATE refunds SET gateway = 'other', recheck_at = UTC_TIMESTAMP(6) - INTERVAL 50 MINUTE WHERE return_id = ? + 1",
    ] {
        world.execute(due, 1).await;
    }
    let flags = ["--reconcile-interval-ms=10"];
    let running = world.start(Fake::with_keys(&[]), &flags).await;
    let metrics = &running.metrics;
    until_true("one is overdue", || {
        metrics.rows.overdue_rechecks.get() == 1
    })
    .await;
    assert_eq!(metrics.rows.oldest_recheck.get().as_secs() / 3600, 3);
    let again = "UPDATE refunds SET recheck_at = UTC_TIMESTAMP(6) + INTERVAL ? DAY";
    world.execute(again, 1).await;
    until_true("none is overdue", || {
        metrics.rows.overdue_rechecks.get() == 0
    })
    .await;
    until_true("none is old", || {
        metrics.rows.oldest_recheck.get().is_zero()
    })
    .await;
    running.stop().await;
}

/// Refunds that another consumer paid, each due for its next look-up.
async fn paid(world: &World, orders: std::ops::RangeInclusive<i64>) {
    let running = world.start(Fake::with_keys(&[]), &[]).await;
    for filed in world.file_all(orders, false).await {
        world.announce(&filed).await;
        world.wait_for(filed.return_id, "refunded").await;
    }
    running.stop().await;
    world
        .execute(
            "UPDATE refunds SET recheck_at = UTC_TIMESTAMP(6) WHERE return_id > ?",
            0,
        )
        .await;
}

const LOOKED_UP_NOW: &str =
    "SELECT COUNT(*) FROM refunds WHERE state = 'succeeded' AND owner IS NOT NULL";
const STILL_DUE: &str =
    "SELECT COUNT(*) FROM refunds WHERE recheck_at <= UTC_TIMESTAMP(6) OR owner IS NOT NULL";

/// The look-ups hang. A new refund does not wait for them, and few calls are used for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_look_ups_of_paid_refunds_hold_nothing_up() {
    for (calls, at_once) in [(64, 8), (16, 2), (2, 1)] {
        let world = World::new().await;
        paid(&world, 1..=12).await;
        let gateway = Fake::with_keys(&[]);
        gateway.status_hangs(true);
        let parallel = format!("--gateway-parallel-calls={calls}");
        let running = world.start(gateway.clone(), &[&parallel]).await;
        until("look-ups hang", || async {
            world.count(LOOKED_UP_NOW).await >= at_once
        })
        .await;
        let plain = world.file(13).await;
        world.announce(&plain).await;
        world.wait_for(plain.return_id, "refunded").await;
        assert_eq!(world.count(LOOKED_UP_NOW).await, at_once, "of {calls}");
        gateway.status_hangs(false);
        until("all were looked up", || async {
            world.count(STILL_DUE).await == 0
        })
        .await;
        running.stop().await;
    }
}

/// The only call is taken, so a look-up would wait, and the payments that come meanwhile would wait behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_no_paid_refund_is_looked_up_while_payments_wait() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[Step::Hold]);
    paid(&world, 1..=3).await;
    let later = "UPDATE refunds SET recheck_at = UTC_TIMESTAMP(6) + INTERVAL ? HOUR";
    world.execute(later, 1).await;
    let flags = ["--gateway-parallel-calls=1"];
    let running = world.start(gateway.clone(), &flags).await;
    let first = world.file(4).await;
    world.announce(&first).await;
    until_true("it is paid now", || gateway.submitted().len() == 1).await;
    world.execute(later, 0).await;
    // Each is claimed by a scan that began after the look-ups were due.
    for order in 5..=7 {
        let waiting = world.file_with(order, true).await;
        approve(&world, waiting.return_id).await;
        world.wait_for(waiting.return_id, "refund_pending").await;
        assert_eq!(world.count(LOOKED_UP_NOW).await, 0, "order {order}");
    }
    gateway.let_go();
    until("all were looked up", || async {
        world.count(STILL_DUE).await == 0
    })
    .await;
    assert_eq!(gateway.effects().len(), 4);
    running.stop().await;
}

/// A payment that waits for the rate limit holds one of many calls. The rate is for payments all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_no_paid_refund_is_looked_up_while_payments_wait_for_the_rate_limit() {
    let world = World::new().await;
    paid(&world, 1..=3).await;
    let later = "UPDATE refunds SET recheck_at = UTC_TIMESTAMP(6) + INTERVAL ? HOUR";
    world.execute(later, 1).await;
    let gateway = Fake::with_keys(&[]);
    gateway.admit_none(true);
    let running = world.start(gateway.clone(), &[]).await;
    for waiting in 1..=4 {
        let filed = world.file_with(3 + waiting, true).await;
        approve(&world, filed.return_id).await;
        let held_back = || i64::try_from(gateway.held_back()) == Ok(waiting);
        until_true("the payment waits", held_back).await;
        assert_eq!(world.count(LOOKED_UP_NOW).await, 0, "{waiting} wait");
        // From the first one on.
        world.execute(later, 0).await;
    }
    gateway.admit_none(false);
    until("all were looked up", || async {
        world.count(STILL_DUE).await == 0
    })
    .await;
    assert_eq!(gateway.effects().len(), 4);
    running.stop().await;
}
