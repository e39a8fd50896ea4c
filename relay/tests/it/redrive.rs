//! Rows that an operator puts back are sent before the later events of their order, with any owner of the shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shared::domain::ids::{OrderId, Shard};
use sqlx::Executor;
use tokio::task::JoinSet;

use crate::harness::{Event, Fixture, assert_history, until};

/// Seq 2 was parked long ago, with the lowest id. While it is parked, seq 1 is sent and seq 3 is parked, too.
#[tokio::test(flavor = "multi_thread")]
async fn p4_rows_that_are_put_back_are_sent_before_those_that_followed_them() {
    let fixture = Fixture::create().await;
    let events: Vec<Event> = (1..=3).map(|seq| Event::new(5, 5, seq)).collect();
    fixture.insert(&events[1]).await;
    for sql in [
        "INSERT INTO outbox_parked SELECT outbox.*, 'test', 1, UTC_TIMESTAMP(6) FROM outbox",
        "DELETE FROM outbox",
        "ALTER TABLE outbox AUTO_INCREMENT = 100",
    ] {
        fixture.pool().execute(sql).await.expect(sql);
    }
    let relay = fixture.relay().await;
    fixture.insert(&events[0]).await;
    fixture.insert(&events[2]).await;
    until("the later one is parked, too", || async {
        fixture.count("outbox_parked").await == 2
    })
    .await;
    fixture.outbox_is_empty().await;

    assert_eq!(fixture.redrive(Shard::of(OrderId(5))).await, 2);
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(
        assert_history(&received, &events),
        0,
        "nothing is sent again"
    );
    assert_eq!(fixture.count("outbox_parked").await, 0);
    relay.stop().await;
}

/// The record is refused for its size. Then an operator raises the topic's limit and puts it back.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_record_put_back_after_its_topic_was_changed_is_checked_against_the_new_limit() {
    let fixture = Fixture::create().await;
    let mut events: Vec<Event> = (1..=3).map(|seq| Event::new(5, 5, seq)).collect();
    events[1].payload = vec![b'x'; 250_000];
    let relay = fixture.relay().await;
    fixture.insert_all(&events).await;
    until("it is parked with its follower", || async {
        fixture.count("outbox_parked").await == 2
    })
    .await;
    fixture.topics.set_limit(1_000_000).await;
    fixture.redrive(Shard::of(OrderId(5))).await;
    until("both tables are empty", || async {
        fixture.count("outbox").await == 0 && fixture.count("outbox_parked").await == 0
    })
    .await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&received, &events), 0);
    relay.stop().await;
}

const WRITERS: i64 = 4;
const ORDERS: i64 = 48;

/// Writes the next event of each of its orders, again and again, until `stop`. Every eighth order has one record that is
/// too large for the first limit of the topic.
async fn write(fixture: Arc<Fixture>, writer: i64, stop: Arc<AtomicBool>) -> Vec<Event> {
    let mut written = Vec::new();
    let mut seq = 0;
    while !stop.load(Ordering::Relaxed) {
        seq += 1;
        for order in (0..ORDERS).filter(|order| order % WRITERS == writer) {
            let mut event = Event::new(order, order + 1_000, seq);
            if order % 8 < WRITERS && seq == 3 {
                event.payload = vec![b'x'; 250_000];
            }
            fixture.insert(&event).await;
            written.push(event);
        }
    }
    written
}

async fn redrive_all(fixture: &Fixture) -> u64 {
    let mut rows = 0;
    for shard in Shard::all() {
        rows += fixture.redrive(shard).await;
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_redrive_while_followers_arrive_and_the_shards_change_hands_keeps_the_order() {
    let fixture = Arc::new(Fixture::create().await);
    let first = fixture.relay().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(Arc::clone(&fixture), writer, Arc::clone(&stop)));
    }
    until("records are parked, with later events", || async {
        fixture.count("outbox_parked").await >= 60
    })
    .await;
    // Put back too early: they are refused and parked again, with the events that arrived since.
    let mut put_back = redrive_all(&fixture).await;
    fixture.topics.set_limit(1_000_000).await;
    let second = fixture.relay().await;
    // Some redrives happen before the hand-over of their shard, some during it, some after it.
    let mut others = 0;
    until("the second relay owns its share", || async {
        fixture.owners().await.values().collect::<Vec<_>>() == [&8, &8]
    })
    .await;
    let hand_over = tokio::spawn(first.stop());
    while !hand_over.is_finished() || others < 3 {
        put_back += redrive_all(&fixture).await;
        others += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    hand_over.await.expect("no panic");
    stop.store(true, Ordering::Relaxed);
    let events: Vec<Event> = writers.join_all().await.into_iter().flatten().collect();
    until("both tables are empty", || async {
        let parked = fixture.count("outbox_parked").await;
        if parked > 0 {
            redrive_all(&fixture).await;
        }
        parked == 0 && fixture.count("outbox").await == 0
    })
    .await;
    let received = fixture.topics.read_events(events.len()).await;
    let again = assert_history(&received, &events);
    eprintln!(
        "redrive under load: {} events, {put_back} put back, {again} repeats",
        events.len()
    );
    assert!(put_back > 60);
    second.stop().await;
}
