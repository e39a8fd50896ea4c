//! After a crash or a broken producer: perhaps twice, never lost, never out of order.

use std::sync::atomic::Ordering;

use relay::publisher::Kafka;
use sqlx::{AssertSqlSafe, Executor};

use crate::harness::{Faulty, Seen, Stage, assert_history, history, until};
use crate::program::Program;

/// Row locks of another session stop the DELETE, so that the kill falls between acknowledgement and delete.
#[tokio::test(flavor = "multi_thread")]
async fn p4_kill_9_after_acknowledgement_and_before_delete_repeats_but_neither_loses_nor_reorders()
{
    let stage = Stage::set().await;
    let events = history(0..100, 3);
    stage.insert_all(&events).await;
    let mut lock = stage.pool().begin().await.expect("begin");
    lock.execute("SELECT id FROM outbox FOR UPDATE")
        .await
        .expect("lock");
    let victim = Program::start(&stage, &[]).await;
    stage.topics.read_events(events.len()).await;
    victim.kill_9().await;
    end_orphaned_deletes(&stage).await;
    assert_eq!(stage.count("outbox").await, 300, "nothing was deleted");
    lock.rollback().await.expect("rollback");

    let heir = stage.relay().await;
    stage.outbox_is_empty().await;
    let mut count = 0;
    let twice = |_: &Seen| {
        count += 1;
        count >= 2 * events.len()
    };
    let seen = stage
        .topics
        .read_until("each event of both relays", twice)
        .await;
    let again = assert_history(&seen, &events);
    assert_eq!(again, events.len(), "each was sent by both");
    heir.stop().await;
}

/// A statement that waits for a lock outlives its client; here it must not do the dead relay's work after all.
async fn end_orphaned_deletes(stage: &Stage) {
    until("no DELETE is waiting", || async {
        let waiting: Vec<u64> = sqlx::query_scalar(
            "SELECT id FROM performance_schema.processlist WHERE db = DATABASE() AND info LIKE '%delete_published%' \
             AND id <> CONNECTION_ID()",
        )
        .fetch_all(stage.pool())
        .await
        .expect("the process list");
        for id in &waiting {
            // It may have ended by itself.
            let _ = stage.pool().execute(AssertSqlSafe(format!("KILL {id}"))).await;
        }
        waiting.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_broken_producer_is_replaced_and_order_is_kept() {
    let stage = Stage::set().await;
    let events = history(0..150, 4);
    stage.insert_all(&events).await;
    let cfg = stage.config(&[]);
    let faulty = Faulty::breaking_at_each(Kafka::new(&cfg.kafka), 250);
    let (enqueued, producers) = (faulty.enqueued.clone(), faulty.producers.clone());
    let relay = stage.relay_with(cfg, faulty).await;
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(events.len()).await;
    assert_history(&seen, &events);
    assert!(
        producers.load(Ordering::Relaxed) >= 3,
        "it broke at 250 and 500"
    );
    assert!(
        enqueued.load(Ordering::Relaxed) > events.len(),
        "and what was in flight was sent again"
    );
    relay.stop().await;
}
