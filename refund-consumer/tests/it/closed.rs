//! A provider that accepts no calls, and the order of the attempts once it accepts calls again.

use shared::domain::transition::Filed;

use crate::claims::approve;
use crate::harness::fake::{Fake, Step};
use crate::harness::{World, until, until_true};

/// A claim would only move the backlog from Kafka, where it costs nothing, into rows that scans find again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_no_message_is_taken_while_the_gateway_accepts_no_calls() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[]));
    gateway.close(true);
    let filed = world.file_all(1..=20, false).await;
    for one in &filed {
        world.announce(one).await;
    }
    // This return has no message: a scan claims it, so that one attempt is there to try a call with.
    let approved = world.file_with(21, true).await;
    approve(&world, approved.return_id).await;
    let flags = ["--initiated-grace-secs=0"];
    let running = world.start(gateway.clone(), &flags).await;
    let joined =
        || running.metrics.intake.paused.get() == 1 && running.metrics.work.rebalances.get() > 0;
    until_true("it has joined, and paused", joined).await;
    world.wait_for(approved.return_id, "refund_pending").await;
    let later = world.file_with(22, true).await;
    approve(&world, later.return_id).await;
    // Every scan has run at least once since then.
    world.wait_for(later.return_id, "refund_pending").await;
    assert_eq!(running.messages("claimed"), 0);
    for one in &filed {
        assert_eq!(world.status(one.return_id).await.0, "initiated");
    }
    gateway.close(false);
    for one in filed.iter().chain([&approved, &later]) {
        world.wait_for(one.return_id, "refunded").await;
    }
    assert_eq!(gateway.effects().len(), 22);
    running.stop().await;
}

/// Many attempts were never sent, and one may have paid: that one comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_attempts_that_may_have_paid_do_not_wait_for_those_that_are_sent() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[Step::PayUnheard]));
    gateway.find_fails(true);
    let first = world.start(gateway.clone(), &[]).await;
    let unclear = world.file(1).await;
    world.announce(&unclear).await;
    until("it is unknown", || async {
        let unknown = world.count("SELECT COUNT(*) FROM refunds WHERE state = 'unknown'");
        (unknown.await == 1).then_some(())
    })
    .await;
    first.stop().await;

    let unsent = world.file_all(2..=31, true).await;
    leave_claimed(&world, &unsent).await;
    let looked_up = gateway.looked_up().len();
    gateway.find_fails(false);
    // Each kind of scan may then hold one open attempt.
    let flags = [
        "--gateway-parallel-calls=1",
        "--initiated-grace-secs=3600",
        "--max-open-attempts=16",
    ];
    let second = world.start(gateway.clone(), &flags).await;
    for one in unsent.iter().chain([&unclear]) {
        world.wait_for(one.return_id, "refunded").await;
    }
    let key = format!("refund-{}-1", unclear.event_id);
    let look_ups = &gateway.looked_up()[looked_up..];
    let position = look_ups.iter().position(|one| *one == key);
    assert!(
        position.is_some_and(|at| at < 5),
        "{position:?} of {}",
        look_ups.len()
    );
    second.stop().await;
}

/// Leaves attempts as a consumer does that stops between claim and call. They are due before the unclear one.
async fn leave_claimed(world: &World, filed: &[Filed]) {
    let gateway = Fake::with_keys(&[]);
    gateway.close(true);
    for one in filed {
        approve(world, one.return_id).await;
    }
    let consumer = world.start(gateway, &[]).await;
    until("all are claimed", || async {
        let claimed = world.count("SELECT COUNT(*) FROM refunds WHERE state = 'claimed'");
        (claimed.await == 30).then_some(())
    })
    .await;
    consumer.stop().await;
    for set in [
        "UPDATE refunds SET owner = NULL, call_deadline = NULL, first_sent_at = NULL, \
         next_check_at = UTC_TIMESTAMP(6) - INTERVAL 1 HOUR WHERE return_id > ? AND state = 'claimed'",
        "UPDATE refunds SET next_check_at = UTC_TIMESTAMP(6) WHERE return_id > ? AND state = 'unknown'",
    ] {
        world.execute(set, 0).await;
    }
}
