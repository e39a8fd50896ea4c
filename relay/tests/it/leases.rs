//! Which relay publishes which shard.

use relay::Drain;
use shared::domain::ids::{OrderId, Shard};
use sqlx::Executor;

use crate::harness::{Event, Fixture, until};

#[tokio::test(flavor = "multi_thread")]
async fn shards_of_a_vanished_relay_are_taken_over_when_its_lease_ends() {
    let fixture = Fixture::create().await;
    fixture
        .pool()
        .execute(
            "UPDATE outbox_lease SET owner = 'relay-dead', epoch = 7, \
             lease_until = UTC_TIMESTAMP(6) + INTERVAL 2 SECOND",
        )
        .await
        .expect("a lease of another relay");
    fixture.insert(&Event::new(1, 1, 1)).await;
    let relay = fixture.relay().await;
    let received = fixture.topics.read_events(1).await;
    assert_eq!(received[0].epoch(), 8, "the epoch rose");
    let early: bool = sqlx::query_scalar("SELECT SUM(epoch <> 8) > 0 FROM outbox_lease")
        .fetch_one(fixture.pool())
        .await
        .expect("epochs");
    assert!(!early, "each shard was acquired once");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_share_the_shards_and_the_survivor_gets_them_all() {
    let fixture = Fixture::create().await;
    let first = fixture.relay().await;
    until("the first owns all shards", || async {
        fixture.owners().await.values().eq([&16])
    })
    .await;
    let second = fixture.relay().await;
    until("both own eight shards", || async {
        fixture.owners().await.values().collect::<Vec<_>>() == [&8, &8]
    })
    .await;
    for n in 0..400 {
        fixture.insert(&Event::new(n, n, 1)).await;
    }
    fixture.outbox_is_empty().await;
    assert!(first.metrics.published_rows.get() > 0 && second.metrics.published_rows.get() > 0);
    assert_eq!(first.stop().await, Drain::Complete);
    until("the second owns all shards", || async {
        fixture.owners().await.values().eq([&16])
    })
    .await;
    let received = fixture.topics.read_events(400).await;
    assert_eq!(received.len(), 400, "a hand-over causes no duplicates");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p11_a_stopped_relay_flushes_releases_its_leases_and_deregisters() {
    let fixture = Fixture::create().await;
    let relay = fixture.relay().await;
    until("it owns all shards", || async {
        fixture.owners().await.values().eq([&16])
    })
    .await;
    let events: Vec<Event> = (0..3_000).map(|n| Event::new(n, n, 1)).collect();
    fixture.insert_all(&events).await;
    until("it has published rows", || async {
        relay.metrics.published_rows.get() > 0
    })
    .await;
    let published = relay.metrics.published_rows.clone();
    let deleted = relay.metrics.deleted_rows.clone();
    assert_eq!(relay.stop().await, Drain::Complete);
    assert_eq!(
        published.get(),
        deleted.get(),
        "every acknowledged row is deleted"
    );
    assert!(fixture.owners().await.is_empty());
    assert_eq!(fixture.count("outbox_relay").await, 0);

    let successor = fixture.relay().await;
    fixture.outbox_is_empty().await;
    assert_eq!(
        fixture.topics.read_events(3_000).await.len(),
        3_000,
        "no duplicates"
    );
    successor.stop().await;
}

/// Does what `returnsctl outbox pause` and `resume` do.
async fn set_paused(fixture: &Fixture, paused: bool, shards: std::ops::Range<u8>) {
    let at = if paused { "UTC_TIMESTAMP(6)" } else { "NULL" };
    let sql = format!(
        "UPDATE outbox_lease SET paused_at = {at} WHERE shard >= {} AND shard < {}",
        shards.start, shards.end
    );
    fixture
        .pool()
        .execute(sqlx::AssertSqlSafe(sql))
        .await
        .expect("paused_at");
}

async fn owned_among(fixture: &Fixture, first: u8, last: u8) -> i64 {
    sqlx::query_scalar("SELECT COUNT(owner) FROM outbox_lease WHERE shard BETWEEN ? AND ?")
        .bind(first)
        .bind(last)
        .fetch_one(fixture.pool())
        .await
        .expect("owners")
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_paused_shard_is_flushed_and_released_and_no_relay_acquires_it_until_it_is_resumed() {
    let fixture = Fixture::create().await;
    let first = fixture.relay().await;
    until("it owns all shards", || async {
        fixture.owners().await.values().eq([&16])
    })
    .await;
    let events: Vec<Event> = (0..6_000).map(|n| Event::new(n, n, 1)).collect();
    fixture.insert_all(&events[..3_000]).await;
    until("it has published rows", || async {
        first.metrics.published_rows.get() > 0
    })
    .await;
    set_paused(&fixture, true, 0..8).await;
    until("half of the shards are released, half are kept", || async {
        (
            owned_among(&fixture, 0, 7).await,
            owned_among(&fixture, 8, 15).await,
        ) == (0, 8)
    })
    .await;
    until("the pause shows", || async {
        first.metrics.paused_shards.get() == 8
    })
    .await;
    // From here on, rows of the paused shards wait with any relay.
    fixture.insert_all(&events[3_000..]).await;
    let second = fixture.relay().await;
    until("both relays share the other half", || async {
        fixture.owners().await.values().collect::<Vec<_>>() == [&4, &4]
    })
    .await;
    let elsewhere = "SELECT COUNT(*) FROM outbox WHERE shard >= 8";
    until("the other half is drained", || async {
        let left: i64 = sqlx::query_scalar(elsewhere)
            .fetch_one(fixture.pool())
            .await
            .expect("count");
        left == 0
    })
    .await;
    assert_eq!(owned_among(&fixture, 0, 7).await, 0);
    assert_eq!(second.metrics.paused_shards.get(), 8, "whoever owned them");
    let waiting = fixture.count("outbox").await;
    let late_and_paused = events[3_000..]
        .iter()
        .filter(|event| Shard::of(OrderId(event.order_id)).0 < 8)
        .count();
    assert!(waiting >= i64::try_from(late_and_paused).expect("few"));

    set_paused(&fixture, false, 0..8).await;
    until("all shards are owned again", || async {
        fixture.owners().await.values().sum::<i64>() == 16
    })
    .await;
    until("the pause is over", || async {
        first.metrics.paused_shards.get() + second.metrics.paused_shards.get() == 0
    })
    .await;
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(6_000).await;
    assert_eq!(
        received.len(),
        6_000,
        "no event is lost, and flushing causes no duplicates"
    );
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_shard_of_a_dead_relay_is_not_taken_over() {
    let fixture = Fixture::create().await;
    fixture
        .pool()
        .execute(
            "UPDATE outbox_lease SET owner = 'relay-dead', lease_until = UTC_TIMESTAMP(6), \
             paused_at = IF(shard = 3, UTC_TIMESTAMP(6), NULL)",
        )
        .await
        .expect("a dead relay and a pause");
    let relay = fixture.relay().await;
    until("the other shards are owned", || async {
        fixture.owners().await.values().max() == Some(&15)
    })
    .await;
    assert_eq!(fixture.owners().await["relay-dead"], 1);
    set_paused(&fixture, false, 3..4).await;
    until("all shards are owned", || async {
        fixture.owners().await.values().eq([&16])
    })
    .await;
    relay.stop().await;
}
