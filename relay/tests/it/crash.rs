//! After a crash or a broken producer, events may arrive twice, but none is lost or out of order.

use std::sync::atomic::Ordering;

use relay::publisher::kafka::KafkaPublisher;
use sqlx::{AssertSqlSafe, Executor};

use crate::harness::{FaultyPublisher, Fixture, Record, assert_history, history, until};
use crate::program::Program;

/// Row locks of another session block the DELETE, so the kill happens between acknowledgement and delete.
#[tokio::test(flavor = "multi_thread")]
async fn p4_kill_9_after_acknowledgement_and_before_delete_repeats_but_neither_loses_nor_reorders()
{
    let fixture = Fixture::create().await;
    let events = history(0..100, 3);
    fixture.insert_all(&events).await;
    let mut lock = fixture.pool().begin().await.expect("begin");
    lock.execute("SELECT id FROM outbox FOR UPDATE")
        .await
        .expect("lock");
    let killed = Program::start(&fixture, &[]).await;
    fixture.topics.read_events(events.len()).await;
    killed.kill_9().await;
    end_orphaned_deletes(&fixture).await;
    assert_eq!(fixture.count("outbox").await, 300, "nothing was deleted");
    lock.rollback().await.expect("rollback");

    let successor = fixture.relay().await;
    fixture.outbox_is_empty().await;
    let mut count = 0;
    let twice = |_: &Record| {
        count += 1;
        count >= 2 * events.len()
    };
    let received = fixture
        .topics
        .read_until("each event from both relays", twice)
        .await;
    let again = assert_history(&received, &events);
    assert_eq!(again, events.len(), "both relays sent each event");
    successor.stop().await;
}

/// A statement that waits for a lock outlives its client. Here it must not finish the killed relay's work.
async fn end_orphaned_deletes(fixture: &Fixture) {
    until("no DELETE is waiting", || async {
        let waiting: Vec<u64> = sqlx::query_scalar(
            "SELECT id FROM performance_schema.processlist WHERE db = DATABASE() AND info LIKE '%delete_published%' \
             AND id <> CONNECTION_ID()",
        )
        .fetch_all(fixture.pool())
        .await
        .expect("the process list");
        for id in &waiting {
            // It may have ended in the meantime.
            let _ = fixture.pool().execute(AssertSqlSafe(format!("KILL {id}"))).await;
        }
        waiting.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_broken_producer_is_replaced_and_order_is_kept() {
    let fixture = Fixture::create().await;
    let events = history(0..150, 4);
    fixture.insert_all(&events).await;
    let cfg = fixture.config(&[]);
    let faulty = FaultyPublisher::breaking_at_each(KafkaPublisher::new(&cfg.kafka), 250);
    let (enqueued, producers) = (faulty.enqueued.clone(), faulty.producers.clone());
    let relay = fixture.relay_with(cfg, faulty).await;
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_history(&received, &events);
    assert!(
        producers.load(Ordering::Relaxed) >= 3,
        "it broke at records 250 and 500"
    );
    assert!(
        enqueued.load(Ordering::Relaxed) > events.len(),
        "the records in flight were sent again"
    );
    relay.stop().await;
}
