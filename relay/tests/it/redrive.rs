//! Rows that an operator puts back go before those that followed them, whoever owns the shard by then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shared::domain::ids::{OrderId, Shard};
use sqlx::Executor;
use tokio::task::JoinSet;

use crate::harness::{Event, Stage, assert_history, until};

/// Seq 2 was parked long ago, with the lowest id. While it is, seq 1 and seq 3 follow it.
#[tokio::test(flavor = "multi_thread")]
async fn p4_rows_that_are_put_back_go_before_those_that_followed_them() {
    let stage = Stage::set().await;
    let events: Vec<Event> = (1..=3).map(|seq| Event::new(5, 5, seq)).collect();
    stage.insert(&events[1]).await;
    for sql in [
        "INSERT INTO outbox_parked SELECT outbox.*, 'test', 1, UTC_TIMESTAMP(6) FROM outbox",
        "DELETE FROM outbox",
        "ALTER TABLE outbox AUTO_INCREMENT = 100",
    ] {
        stage.pool().execute(sql).await.expect(sql);
    }
    let relay = stage.relay().await;
    stage.insert(&events[0]).await;
    stage.insert(&events[2]).await;
    until("both are parked too", || async {
        stage.count("outbox_parked").await == 3
    })
    .await;

    assert_eq!(stage.redrive(Shard::of(OrderId(5))).await, 3);
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&seen, &events), 0, "nothing is sent again");
    assert_eq!(stage.count("outbox_parked").await, 0);
    relay.stop().await;
}

/// The record is refused for its size; then somebody raises the topic's limit and puts it back.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_record_put_back_after_its_topic_was_changed_is_judged_by_the_new_limit() {
    let stage = Stage::set().await;
    let mut events: Vec<Event> = (1..=3).map(|seq| Event::new(5, 5, seq)).collect();
    events[1].payload = vec![b'x'; 250_000];
    let relay = stage.relay().await;
    stage.insert_all(&events).await;
    until("it is parked with its follower", || async {
        stage.count("outbox_parked").await == 2
    })
    .await;
    stage.topics.set_limit(1_000_000).await;
    stage.redrive(Shard::of(OrderId(5))).await;
    until("it is gone from both tables", || async {
        stage.count("outbox").await == 0 && stage.count("outbox_parked").await == 0
    })
    .await;
    let seen = stage.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&seen, &events), 0);
    relay.stop().await;
}

const WRITERS: i64 = 4;
const ORDERS: i64 = 48;

/// Appends to the histories of its orders, one after the other, until told to stop. Every eighth order has one record
/// that is too large for the topic as it is at first.
async fn write(stage: Arc<Stage>, writer: i64, stop: Arc<AtomicBool>) -> Vec<Event> {
    let mut written = Vec::new();
    let mut seq = 0;
    while !stop.load(Ordering::Relaxed) {
        seq += 1;
        for order in (0..ORDERS).filter(|order| order % WRITERS == writer) {
            let mut event = Event::new(order, order + 1_000, seq);
            if order % 8 < WRITERS && seq == 3 {
                event.payload = vec![b'x'; 250_000];
            }
            stage.insert(&event).await;
            written.push(event);
        }
    }
    written
}

async fn redrive_all(stage: &Stage) -> u64 {
    let mut rows = 0;
    for shard in Shard::all() {
        rows += stage.redrive(shard).await;
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_redrive_while_followers_arrive_and_the_shards_change_hands_keeps_the_order() {
    let stage = Arc::new(Stage::set().await);
    let first = stage.relay().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(Arc::clone(&stage), writer, Arc::clone(&stop)));
    }
    until("records are parked, followers too", || async {
        stage.count("outbox_parked").await >= 60
    })
    .await;
    // Put back at once, too early: they are refused and parked again, with what arrived meanwhile.
    let mut put_back = redrive_all(&stage).await;
    stage.topics.set_limit(1_000_000).await;
    let second = stage.relay().await;
    // Some of these fall before the hand-over of their shard, some into it, some after it.
    let mut others = 0;
    until("the second relay owns its share", || async {
        stage.owners().await.values().collect::<Vec<_>>() == [&8, &8]
    })
    .await;
    let hand_over = tokio::spawn(first.stop());
    while !hand_over.is_finished() || others < 3 {
        put_back += redrive_all(&stage).await;
        others += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    hand_over.await.expect("no panic");
    stop.store(true, Ordering::Relaxed);
    let events: Vec<Event> = writers.join_all().await.into_iter().flatten().collect();
    until("nothing is left in either table", || async {
        let parked = stage.count("outbox_parked").await;
        if parked > 0 {
            redrive_all(&stage).await;
        }
        parked == 0 && stage.count("outbox").await == 0
    })
    .await;
    let seen = stage.topics.read_events(events.len()).await;
    let again = assert_history(&seen, &events);
    eprintln!(
        "redrive under load: {} events, {put_back} put back, {again} came again",
        events.len()
    );
    assert!(put_back > 60);
    second.stop().await;
}
