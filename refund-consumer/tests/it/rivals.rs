use crate::harness::fake::{Fake, Step};
use crate::harness::{World, until_true};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p5_rivals_in_one_group_pay_every_return_once() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[]);
    // Quick scans without grace: messages, scans and both consumers compete for every return.
    let flags = ["--reconcile-interval-ms=10", "--initiated-grace-secs=0"];
    let one = world.start(gateway.clone(), &flags).await;
    let two = world.start(gateway.clone(), &flags).await;
    let mut filed = Vec::new();
    for order in 1..=200 {
        let one = world.file(order).await;
        world.announce(&one).await;
        filed.push(one);
    }
    for one in &filed {
        world.wait_for(one.return_id, "refunded").await;
    }
    let mut effects = gateway.effects();
    effects.sort_unstable();
    effects.dedup();
    assert_eq!((gateway.submitted().len(), effects.len()), (200, 200));
    for one in filed.iter().step_by(20) {
        assert_eq!(world.audited(one.return_id).await.len(), 4);
    }
    assert_eq!(world.count("SELECT COUNT(*) FROM return_events").await, 800);
    assert_eq!(world.count("SELECT COUNT(*) FROM dead_letters").await, 0);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p5_rivals_take_each_due_attempt_over_once() {
    for gateway in [Fake::with_keys(&[]), Fake::without_keys(&[])] {
        let world = World::new().await;
        let flags = ["--reconcile-interval-ms=10", "--gateway-parallel-calls=4"];
        let one = world.start(gateway.clone(), &flags).await;
        let two = world.start(gateway.clone(), &flags).await;
        for order in 1..=150 {
            let filed = world.file(order).await;
            // The row is like a retry whose first attempt is not recorded: only the scans can find it.
            sqlx::query(
                "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, \
                 created_at, updated_at) VALUES (?, 1, ?, 49.90, 'EUR', 'claimed', UTC_TIMESTAMP(6) + INTERVAL 1 DAY, \
                 UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
            )
            .bind(filed.return_id)
            .bind(format!("key-{order}"))
            .execute(&world.db.pool)
            .await
            .expect("an attempt");
        }
        world
            .execute(
                "UPDATE returns SET status = 'refund_pending' WHERE id > ?",
                0,
            )
            .await;
        world
            .execute(
                "UPDATE refunds SET next_check_at = UTC_TIMESTAMP(6) WHERE attempt > ?",
                0,
            )
            .await;
        crate::harness::until("all are refunded", || async {
            (world
                .count("SELECT COUNT(*) FROM returns WHERE status = 'refunded'")
                .await
                == 150)
                .then_some(())
        })
        .await;
        assert_eq!(gateway.submitted().len(), 150);
        assert_eq!(
            gateway.looked_up().len(),
            150,
            "each was taken over by one of them"
        );
        assert_eq!(world.count("SELECT COUNT(*) FROM return_events").await, 300);
        one.stop().await;
        two.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn partitions_move_to_a_newcomer_and_back_without_a_second_effect() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[]);
    // The scans take over the attempts that the stopped consumer gives back, and no new returns.
    let flags = ["--initiated-grace-secs=3600"];
    let one = world.start(gateway.clone(), &flags).await;
    let mut filed = Vec::new();
    let mut two = None;
    for order in 1..=300 {
        let new = world.file(order).await;
        world.announce(&new).await;
        filed.push(new);
        if order == 50 {
            two = Some(world.start(gateway.clone(), &flags).await);
        }
    }
    let two = two.expect("started at 50");
    // Both have partitions once the second one has claimed something.
    let mut order = 300;
    while two.messages("claimed") == 0 {
        order += 1;
        assert!(order < 5_000, "the second consumer gets no partition");
        let new = world.file(order).await;
        world.announce(&new).await;
        filed.push(new);
    }
    one.stop().await;
    for new in &filed {
        world.wait_for(new.return_id, "refunded").await;
    }
    assert_eq!(gateway.submitted().len(), filed.len());
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_without_room_takes_no_more_until_there_is_room() {
    let world = World::new().await;
    let held = [const { Step::Hold }; 8];
    let gateway = Fake::with_keys(&held);
    let flags = [
        "--max-open-attempts=8",
        "--consumer-batch-max=4",
        "--reconcile-interval-ms=60000",
    ];
    let running = world.start(gateway.clone(), &flags).await;
    let mut filed = Vec::new();
    for order in 1..=40 {
        let new = world.file(order).await;
        world.announce(&new).await;
        filed.push(new);
    }
    until_true("it is full", || running.metrics.intake.paused.get() == 1).await;
    let open = running.metrics.intake.open_attempts.get();
    assert!(
        (5..=6).contains(&open),
        "{open} open with room for 8, a quarter of it not for messages, and half a batch at least"
    );
    gateway.let_go();
    for new in &filed {
        world.wait_for(new.return_id, "refunded").await;
    }
    assert_eq!(gateway.submitted().len(), 40);
    until_true("it takes messages again", || {
        running.metrics.intake.paused.get() == 0
    })
    .await;
    running.stop().await;
}

/// They were claimed together, so they have one deadline: the second gets its permit when the first gives up, at the
/// deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_an_attempt_that_waits_past_its_deadline_is_not_sent() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[Step::Hold]);
    let filed = world.file_all(1..=2, false).await;
    let flags = [
        "--initiated-grace-secs=0",
        "--reconcile-interval-ms=60000",
        "--gateway-parallel-calls=1",
        "--call-deadline-ms=4000",
    ];
    let running = world.start(gateway.clone(), &flags).await;
    let expired = &running.metrics.work.expired_before_call;
    until_true("its permit comes too late", || expired.get() == 1).await;
    assert_eq!(gateway.submitted().len(), 1);
    running.stop().await;
    assert_eq!(gateway.submitted().len(), 1);

    let successor = world.start(gateway.clone(), &[]).await;
    for one in &filed {
        world.wait_for(one.return_id, "refunded").await;
    }
    assert_eq!(gateway.effects().len(), 2);
    successor.stop().await;
}
