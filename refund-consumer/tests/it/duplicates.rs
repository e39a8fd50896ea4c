use shared::test_support::keep_when_silent;
use sqlx::AssertSqlSafe;

use crate::harness::{World, body, until, until_true};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_the_same_message_a_hundred_times_has_one_effect() {
    let world = World::new().await;
    let running = world.start(world.simulated(), &[]).await;
    let filed = world.file(1).await;
    for _ in 0..100 {
        world.announce(&filed).await;
    }
    until_true("all are counted", || {
        // A record is left to the scan if the settlement holds its order.
        let repeats = running.messages("duplicate") + running.messages("left");
        running.messages("claimed") == 1 && repeats == 99
    })
    .await;
    world.wait_for(filed.return_id, "refunded").await;
    assert_eq!(world.effects(), 1);
    assert_eq!(world.audited(filed.return_id).await.len(), 4);
    assert_eq!(world.count("SELECT COUNT(*) FROM inbox").await, 1);
    assert_eq!(world.count("SELECT COUNT(*) FROM dead_letters").await, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_message_is_known_by_its_return() {
    let world = World::new().await;
    let running = world.start(world.simulated(), &[]).await;
    let filed = world.file(1).await;
    world.send(None, Some(&body(&filed)), &[]).await;
    world.wait_for(filed.return_id, "refunded").await;
    // The same return with headers: the same event, so a duplicate.
    world.announce(&filed).await;
    until_true("the second is counted", || {
        running.messages("duplicate") == 1
    })
    .await;
    let remembered: Vec<shared::domain::ids::EventId> =
        sqlx::query_scalar("SELECT event_id FROM inbox")
            .fetch_all(&world.db.pool)
            .await
            .expect("the inbox");
    assert_eq!(remembered, [filed.event_id]);
    assert_eq!(world.effects(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_group_reads_everything_again_without_effect() {
    let world = World::new().await;
    let mut filed = Vec::new();
    for order in 1..=20 {
        let one = world.file(order).await;
        world.announce(&one).await;
        filed.push(one);
    }
    let running = world.start(world.simulated(), &[]).await;
    for one in &filed {
        world.wait_for(one.return_id, "refunded").await;
    }
    running.stop().await;

    // Another name in Kafka and in the inbox: only the rows show that they are duplicates.
    let running = world
        .start(world.simulated(), &["--consumer-group=it-other"])
        .await;
    until_true("all are seen again", || {
        running.messages("already_moved") == 20
    })
    .await;
    assert_eq!(world.effects(), 20);
    for one in &filed {
        assert_eq!(world.audited(one.return_id).await.len(), 4);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_no_offset_is_stored_before_its_claim_is_committed() {
    let world = World::new().await;
    let filed = world.file(1).await;
    // With this lock the claim does not end: it gets no error, and no row is held that it could leave to the scan.
    let mut stranger = world.db.pool.acquire().await.expect("a connection");
    keep_when_silent(&mut stranger).await;
    sqlx::raw_sql("LOCK TABLES dead_letters WRITE")
        .execute(&mut *stranger)
        .await
        .expect("a locked table");
    world.announce(&filed).await;
    let key = filed.order_id.to_string();
    world.send(Some(&key), Some(b"poison"), &[]).await;
    // The scans leave new returns alone: only the messages lead to the claim.
    let flags = ["--initiated-grace-secs=3600"];
    let running = world.start(world.simulated(), &flags).await;
    let session = until("the claim waits for the table", || async {
        let waits = "SELECT CAST(id AS SIGNED) FROM performance_schema.processlist WHERE db = DATABASE() \
                     AND state = 'Waiting for table metadata lock'";
        let found: Option<i64> = sqlx::query_scalar(waits)
            .fetch_optional(&world.db.pool)
            .await
            .expect("the sessions");
        found
    })
    .await;
    running.ask_to_stop();
    sqlx::raw_sql(AssertSqlSafe(format!("KILL {session}")))
        .execute(&mut *stranger)
        .await
        .expect("killed");
    running.stop().await;
    assert_eq!(world.status(filed.return_id).await.0, "initiated");
    sqlx::raw_sql("UNLOCK TABLES")
        .execute(&mut *stranger)
        .await
        .expect("unlocked");

    let running = world.start(world.simulated(), &flags).await;
    world.wait_for(filed.return_id, "refunded").await;
    until_true("the poison is kept", || {
        running.messages("dead_letter") == 1
    })
    .await;
    assert_eq!(
        world
            .count("SELECT COUNT(*) FROM dead_letters WHERE payload = 'poison'")
            .await,
        1
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_after_the_last_stored_offset() {
    let world = World::new().await;
    let first = world.file(1).await;
    world.announce(&first).await;
    let running = world.start(world.simulated(), &[]).await;
    world.wait_for(first.return_id, "refunded").await;
    running.stop().await;

    let running = world.start(world.simulated(), &[]).await;
    let second = world.file(2).await;
    world.announce(&second).await;
    until_true("the second is claimed", || running.messages("claimed") == 1).await;
    assert_eq!(running.messages("duplicate"), 0);
    running.stop().await;
}
