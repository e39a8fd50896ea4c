//! Who publishes which shard.

use relay::Drain;
use sqlx::Executor;

use crate::harness::{Event, Stage, until};

#[tokio::test(flavor = "multi_thread")]
async fn shards_of_a_vanished_relay_are_taken_over_when_its_lease_ends() {
    let stage = Stage::set().await;
    stage
        .pool()
        .execute(
            "UPDATE outbox_lease SET owner = 'relay-gone', epoch = 7, \
             lease_until = UTC_TIMESTAMP(6) + INTERVAL 2 SECOND",
        )
        .await
        .expect("a lease of somebody else");
    stage.insert(&Event::new(1, 1, 1)).await;
    let relay = stage.relay().await;
    let seen = stage.topics.read_events(1).await;
    assert_eq!(seen[0].headers["x-outbox-epoch"], "8", "the epoch rose");
    let early: bool = sqlx::query_scalar("SELECT SUM(epoch <> 8) > 0 FROM outbox_lease")
        .fetch_one(stage.pool())
        .await
        .expect("epochs");
    assert!(!early, "each shard was taken once");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_share_the_shards_and_the_survivor_gets_them_all() {
    let stage = Stage::set().await;
    let first = stage.relay().await;
    until("the first owns all", || async {
        stage.owners().await.values().eq([&16])
    })
    .await;
    let second = stage.relay().await;
    until("both own eight", || async {
        stage.owners().await.values().collect::<Vec<_>>() == [&8, &8]
    })
    .await;
    for n in 0..400 {
        stage.insert(&Event::new(n, n, 1)).await;
    }
    stage.outbox_is_empty().await;
    assert!(first.metrics.published_rows.get() > 0 && second.metrics.published_rows.get() > 0);
    assert_eq!(first.stop().await, Drain::Complete);
    until("the second owns all", || async {
        stage.owners().await.values().eq([&16])
    })
    .await;
    let seen = stage.topics.read_events(400).await;
    assert_eq!(seen.len(), 400, "handing over costs no duplicates");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p11_a_stopped_relay_flushes_releases_its_leases_and_leaves() {
    let stage = Stage::set().await;
    let relay = stage.relay().await;
    until("it owns all", || async {
        stage.owners().await.values().eq([&16])
    })
    .await;
    let events: Vec<Event> = (0..3_000).map(|n| Event::new(n, n, 1)).collect();
    stage.insert_all(&events).await;
    until("it is at work", || async {
        relay.metrics.published_rows.get() > 0
    })
    .await;
    let published = relay.metrics.published_rows.clone();
    let deleted = relay.metrics.deleted_rows.clone();
    assert_eq!(relay.stop().await, Drain::Complete);
    assert_eq!(
        published.get(),
        deleted.get(),
        "what was acknowledged is deleted"
    );
    assert!(stage.owners().await.is_empty());
    assert_eq!(stage.count("outbox_relay").await, 0);

    let heir = stage.relay().await;
    stage.outbox_is_empty().await;
    assert_eq!(
        stage.topics.read_events(3_000).await.len(),
        3_000,
        "no duplicates"
    );
    heir.stop().await;
}
