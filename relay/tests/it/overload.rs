//! A producer queue that overflows, and a shard with far more rows than the others.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use relay::Drain;
use relay::publisher::kafka::KafkaPublisher;
use relay::pump::MAX_UNSETTLED;
use shared::domain::ids::{EventId, OrderId, Shard};

use crate::harness::{Event, FaultyPublisher, Fixture, assert_history, history, until};

#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_producer_queue_that_overflows_loses_and_reorders_nothing() {
    let fixture = Fixture::create().await;
    let events = history(0..500, 8);
    fixture.insert_all(&events).await;
    let cfg = fixture.config(&[]);
    let publisher = FaultyPublisher::counting(KafkaPublisher::new(&cfg.kafka).with_queue(100));
    let overflows = publisher.overflows.clone();
    let relay = fixture.relay_with(cfg, publisher).await;
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(
        assert_history(&received, &events),
        0,
        "nothing is sent again"
    );
    let overflows = overflows.load(Ordering::Relaxed);
    assert!(overflows >= 20, "the queue was full {overflows} times");
    assert_eq!(fixture.count("outbox_parked").await, 0);
    relay.stop().await;
}

/// The same happens when one partition has no leader: rows that the others acknowledge are deleted, so the relay goes on.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_missing_acknowledgement_holds_back_no_other_record_of_its_shard() {
    let fixture = Fixture::create().await;
    let orders = orders_of(|shard| shard == Shard(3)).take(MAX_UNSETTLED * 3 / 2);
    let events: Vec<Event> = orders.map(|order| Event::new(order, order, 1)).collect();
    fixture.insert_at_once(&events).await;
    let cfg = fixture.config(&["--drain-secs=5"]);
    let publisher = FaultyPublisher::losing_the_first_ack(KafkaPublisher::new(&cfg.kafka));
    let relay = fixture.relay_with(cfg, publisher).await;
    until("one row is left", || async {
        fixture.count("outbox").await == 1
    })
    .await;
    assert_eq!(relay.stop().await, Drain::LeftInFlight(1));
    let successor = fixture.relay().await;
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(
        assert_history(&received, &events),
        1,
        "only that record is sent again"
    );
    successor.stop().await;
}

/// The busy shard has the lowest number, because a read returns the shards in their order.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_100_000_rows_in_one_shard_do_not_starve_the_others() {
    const RETURNS: usize = 2_000;
    const SEQS: i32 = 50;
    let fixture = Fixture::create().await;
    let busy: Vec<i64> = orders_of(|shard| shard == Shard(0)).take(RETURNS).collect();
    let mut events: Vec<Event> = (1..=SEQS)
        .flat_map(|seq| {
            busy.iter()
                .map(move |order| Event::new(*order, *order, seq))
        })
        .collect();
    fixture.insert_at_once(&events).await;

    let relay = fixture.relay().await;
    let follower = fixture.topics.follow(&fixture.topics.returns);
    let begun = Instant::now();
    let mut committed: Vec<(EventId, Instant)> = Vec::new();
    let mut others = orders_of(|shard| shard != Shard(0));
    // These commit long before the drain ends and must not wait for it.
    let mut early = 0;
    while relay.metrics.published_rows.get() < 90_000 {
        if relay.metrics.published_rows.get() < 60_000 {
            early = committed.len();
        }
        let order = others.next().expect("endless");
        let event = Event::new(order, order, 1);
        fixture.insert(&event).await;
        committed.push((event.event_id, Instant::now()));
        events.push(event);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        follower.missing(&committed[..early]),
        0,
        "events of {early} are missing"
    );
    let drained = begun.elapsed();
    let latencies = follower.latencies(&committed).await;
    eprintln!("during a drain of 100,000 rows of one shard ({drained:?}): {latencies}");
    assert!(early >= 20, "{early} events during the drain");
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(
        assert_history(&received, &events),
        0,
        "nothing is sent again"
    );
    relay.stop().await;
}

fn orders_of(wanted: impl Fn(Shard) -> bool) -> impl Iterator<Item = i64> {
    (1..).filter(move |order| wanted(Shard::of(OrderId(*order))))
}
