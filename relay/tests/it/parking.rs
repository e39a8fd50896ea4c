//! A record that cannot be sent is parked with its followers; everything else goes on.

use relay::publisher::Kafka;
use sqlx::{Executor, Row};

use crate::harness::{Event, Faulty, Stage, until};

#[tokio::test(flavor = "multi_thread")]
async fn p3_an_oversized_record_is_parked_with_its_followers_and_other_orders_flow() {
    let stage = Stage::set().await;
    let mut events: Vec<Event> = (0..50).map(|n| Event::new(n, n, 1)).collect();
    // Random bytes would do as well: the limit is measured before compression.
    events[20].payload = vec![b'x'; 250_000];
    stage.insert_all(&events).await;
    stage.insert(&Event::new(20, 20, 2)).await;
    let relay = stage.relay().await;
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(49).await;
    assert!(seen.iter().all(|s| s.return_id != 20));
    let parked = sqlx::query("SELECT seq, first_error, attempts FROM outbox_parked ORDER BY id")
        .fetch_all(stage.pool())
        .await
        .expect("parked");
    let parked: Vec<(i32, String, i32)> = parked
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert_eq!(parked.len(), 2);
    assert_eq!(parked[0].0, 1);
    assert!(parked[0].1.contains("max.message.bytes"), "{}", parked[0].1);
    assert_eq!(
        (parked[1].0, parked[1].2),
        (2, 0),
        "the follower was never tried"
    );

    // Also later, also another return of the order, also its first event.
    stage.insert(&Event::new(20, 777, 1)).await;
    stage.outbox_is_empty().await;
    assert_eq!(stage.count("outbox_parked").await, 3);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_refused_batch_is_sent_one_by_one_and_only_the_culprit_is_parked() {
    let stage = Stage::set().await;
    let mut events: Vec<Event> = (0..40).map(|n| Event::new(n, n, 1)).collect();
    events[7].payload = b"poison".to_vec();
    stage.insert_all(&events).await;
    let cfg = stage.config(&[]);
    let faulty = Faulty::refusing(Kafka::new(&cfg.kafka), b"poison");
    let relay = stage.relay_with(cfg, faulty).await;
    stage.outbox_is_empty().await;
    assert_eq!(stage.topics.read_events(39).await.len(), 39);
    let culprits: Vec<i64> = sqlx::query_scalar("SELECT aggregate_id FROM outbox_parked")
        .fetch_all(stage.pool())
        .await
        .expect("parked");
    assert_eq!(culprits, [7]);
    relay.stop().await;
}

/// What an operator's redrive does: the rows return under their own ids and the generation rises.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_put_back_go_before_those_that_followed_them() {
    let stage = Stage::set().await;
    stage
        .pool()
        .execute(
            "INSERT INTO outbox_parked (shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, \
             created_at, first_error, attempts, parked_at) VALUES (CRC32('5') & 15, 1, UUID_TO_BIN(UUID()), 5, 1, \
             'return.tested', 'x', '5', '{}', UTC_TIMESTAMP(6), 'test', 1, UTC_TIMESTAMP(6))",
        )
        .await
        .expect("a parked row");
    sqlx::query("UPDATE outbox_parked SET topic = ?")
        .bind(&stage.topics.returns)
        .execute(stage.pool())
        .await
        .expect("topic");
    stage
        .pool()
        .execute("ALTER TABLE outbox AUTO_INCREMENT = 100")
        .await
        .expect("alter");
    let relay = stage.relay().await;
    stage.insert(&Event::new(5, 5, 2)).await;
    until("the follower is parked too", || async {
        stage.count("outbox_parked").await == 2
    })
    .await;

    let mut tx = stage.pool().begin().await.expect("begin");
    for step in [
        "UPDATE outbox_lease SET redrive_gen = redrive_gen + 1 WHERE shard = CRC32('5') & 15",
        "INSERT INTO outbox (shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, created_at) \
         SELECT shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, created_at \
         FROM outbox_parked",
        "DELETE FROM outbox_parked",
    ] {
        tx.execute(step).await.expect(step);
    }
    tx.commit().await.expect("commit");
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(2).await;
    assert_eq!(seen.len(), 2);
    assert_eq!(stage.count("outbox_parked").await, 0);
    relay.stop().await;
}
