//! One return's events stay in order, whatever the order in which their transactions commit.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay::pending::RowKey;
use relay::store;
use shared::ids::{OrderId, Shard};
use sqlx::{Connection, Executor, Row};

use crate::harness::{Event, Stage, assert_in_order};

#[tokio::test(flavor = "multi_thread")]
async fn p4_events_of_a_return_stay_in_order_over_many_returns_and_shards() {
    const RETURNS: i64 = 400;
    const SEQS: i32 = 6;
    let stage = Arc::new(Stage::set().await);
    let relay = stage.relay().await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let stage = Arc::clone(&stage);
            tokio::spawn(async move {
                for seq in 1..=SEQS {
                    for order in (0..RETURNS).filter(|order| order % 8 == writer) {
                        stage.insert(&Event::new(order, order + 5_000, seq)).await;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(2_400).await;
    assert_eq!(seen.len(), 2_400, "no duplicates without a failure");
    assert_in_order(
        &seen,
        &(5_000..5_000 + RETURNS).map(|id| (id, SEQS)).collect(),
    );
    relay.stop().await;
}

/// Stalled rows commit far below the floor, and their successors a moment later, far above. Three times in a second:
/// a sweep from 0, which would find the stalled rows by itself, can fall into one of them only.
#[tokio::test(flavor = "multi_thread")]
async fn p4_a_late_commit_goes_before_its_successor() {
    const ROUNDS: i64 = 3;
    const ORDERS: i64 = 24;
    let stage = Stage::set().await;
    let relay = stage.relay().await;
    let orders = |round: i64| round * ORDERS + 1..=(round + 1) * ORDERS;
    let mut stalled = Vec::new();
    for round in 0..ROUNDS {
        for order in orders(round) {
            stage.insert(&Event::new(order, order, 1)).await;
        }
        let mut tx = stage.pool().begin().await.expect("begin");
        for order in orders(round) {
            stage
                .insert_on(&mut *tx, &Event::new(order, order, 2))
                .await;
        }
        stalled.push(tx);
    }
    let others = publish_others(&stage).await;
    for (round, tx) in (0..).zip(stalled) {
        tx.commit().await.expect("commit");
        for order in orders(round) {
            stage.insert(&Event::new(order, order, 3)).await;
        }
        stage.outbox_is_empty().await;
    }
    let last: HashMap<i64, i32> = (1..=ROUNDS * ORDERS)
        .map(|id| (id, 3))
        .chain(others.map(|id| (id, 1)))
        .collect();
    let events: i32 = last.values().sum();
    let seen = stage
        .topics
        .read_events(usize::try_from(events).expect("few"))
        .await;
    assert_in_order(&seen, &last);
    assert!(
        relay.metrics.held_rows.get() > 0,
        "some successor was read first"
    );
    relay.stop().await;
}

/// Publishes thousands of rows with later ids, for longer than the floor lags; answers their returns.
async fn publish_others(stage: &Stage) -> Range<i64> {
    let until = Instant::now() + Duration::from_millis(3_500);
    let mut next = 1_000;
    while Instant::now() < until || next < 5_000 {
        let events: Vec<Event> = (next..next + 100).map(|n| Event::new(n, n, 1)).collect();
        stage.insert_all(&events).await;
        next += 100;
    }
    stage.outbox_is_empty().await;
    1_000..next
}

/// With statistics taken while the table was empty, an id list without a forced index becomes a scan.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_500_rows_does_not_wait_for_an_uncommitted_insert_in_their_shard() {
    let stage = Stage::set().await;
    stage
        .pool()
        .execute("ANALYZE TABLE outbox")
        .await
        .expect("analyze");
    let events: Vec<Event> = (0..500).map(|n| Event::new(123, n, 1)).collect();
    stage.insert_all(&events).await;
    let mut open = stage.pool().begin().await.expect("begin");
    stage
        .insert_on(&mut *open, &Event::new(123, 9_999, 1))
        .await;
    let shard = Shard::of(OrderId(123));
    let rows = sqlx::query("SELECT id, event_id FROM outbox WHERE shard = ? ORDER BY id")
        .bind(shard)
        .fetch_all(stage.pool())
        .await
        .expect("rows");
    let keys: Vec<RowKey> = rows
        .iter()
        .map(|row| RowKey {
            shard,
            id: row.get(0),
            event_id: row.get(1),
        })
        .collect();
    assert_eq!(keys.len(), 500);
    let mut conn = stage.pool().acquire().await.expect("a connection").detach();
    conn.execute("SET SESSION innodb_lock_wait_timeout = 1")
        .await
        .expect("set");
    let deleted = store::delete_published(&mut conn, &keys)
        .await
        .expect("no lock wait");
    assert_eq!(deleted, 500);
    // The same without the event's identity finds nothing to delete.
    let strangers: Vec<RowKey> = keys
        .iter()
        .map(|key| RowKey {
            event_id: shared::ids::EventId::generate(),
            ..*key
        })
        .collect();
    let deleted = store::delete_published(&mut conn, &strangers)
        .await
        .expect("no lock wait");
    assert_eq!(deleted, 0);
    conn.close().await.expect("close");
    open.rollback().await.expect("rollback");
}
