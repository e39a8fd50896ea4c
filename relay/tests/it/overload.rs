//! A producer queue that overflows, and a shard with far more rows than the others.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use relay::Drain;
use relay::publisher::Kafka;
use relay::pump::MAX_UNSETTLED;
use shared::domain::ids::{EventId, OrderId, Shard};

use crate::harness::{Event, Faulty, Stage, assert_history, history, until};

#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_producer_queue_that_overflows_loses_and_reorders_nothing() {
    let stage = Stage::set().await;
    let events = history(0..500, 8);
    stage.insert_all(&events).await;
    let cfg = stage.config(&[]);
    let publisher = Faulty::watching(Kafka::new(&cfg.kafka).with_queue(100));
    let overflows = publisher.overflows.clone();
    let relay = stage.relay_with(cfg, publisher).await;
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&seen, &events), 0, "nothing is sent again");
    let overflows = overflows.load(Ordering::Relaxed);
    assert!(overflows >= 20, "the queue was full {overflows} times");
    assert_eq!(stage.count("outbox_parked").await, 0);
    relay.stop().await;
}

/// As when one partition has no leader: what the others acknowledge is deleted all the same, and there is room to go on.
#[tokio::test(flavor = "multi_thread")]
async fn p3_an_acknowledgement_that_does_not_come_holds_back_no_other_record_of_its_shard() {
    let stage = Stage::set().await;
    let orders = orders_of(|shard| shard == Shard(3)).take(MAX_UNSETTLED * 3 / 2);
    let events: Vec<Event> = orders.map(|order| Event::new(order, order, 1)).collect();
    stage.insert_at_once(&events).await;
    let cfg = stage.config(&["--drain-secs=5"]);
    let publisher = Faulty::losing_the_first_ack(Kafka::new(&cfg.kafka));
    let relay = stage.relay_with(cfg, publisher).await;
    until("one row is left", || async {
        stage.count("outbox").await == 1
    })
    .await;
    assert_eq!(relay.stop().await, Drain::LeftInFlight(1));
    let heir = stage.relay().await;
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&seen, &events), 1, "the one is sent again");
    heir.stop().await;
}

/// The hot shard has the lowest number: a read goes through the shards in their order.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_100_000_rows_in_one_shard_do_not_starve_the_others() {
    const RETURNS: usize = 2_000;
    const SEQS: i32 = 50;
    let stage = Stage::set().await;
    let hot: Vec<i64> = orders_of(|shard| shard == Shard(0)).take(RETURNS).collect();
    let mut events: Vec<Event> = (1..=SEQS)
        .flat_map(|seq| hot.iter().map(move |order| Event::new(*order, *order, seq)))
        .collect();
    stage.insert_at_once(&events).await;

    let relay = stage.relay().await;
    let follower = stage.topics.follow(&stage.topics.returns);
    let begun = Instant::now();
    let mut committed: Vec<(EventId, Instant)> = Vec::new();
    let mut others = orders_of(|shard| shard != Shard(0));
    // Committed long before the drain ends: these must not have waited for it.
    let mut early = 0;
    while relay.metrics.published_rows.get() < 90_000 {
        if relay.metrics.published_rows.get() < 60_000 {
            early = committed.len();
        }
        let order = others.next().expect("endless");
        let event = Event::new(order, order, 1);
        stage.insert(&event).await;
        committed.push((event.event_id, Instant::now()));
        events.push(event);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(follower.missing(&committed[..early]), 0, "of {early}");
    let drained = begun.elapsed();
    let latencies = follower.latencies(&committed).await;
    eprintln!("beside a drain of 100,000 rows of one shard ({drained:?}): {latencies}");
    assert!(early >= 20, "{early} rows beside it");
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&seen, &events), 0, "nothing is sent again");
    relay.stop().await;
}

fn orders_of(wanted: impl Fn(Shard) -> bool) -> impl Iterator<Item = i64> {
    (1..).filter(move |order| wanted(Shard::of(OrderId(*order))))
}
