//! Kafka away or a topic missing: wait, say so, answer health, give nothing up.

use std::time::{Duration, Instant};

use relay::Drain;
use relay::publisher::Kafka;
use shared::ops::healthcheck;
use shared::test_support::TestDb;

use crate::harness::{Event, Stage, Topics, until};

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_missing_topic_holds_rows_back_until_it_is_there() {
    let stage = Stage {
        db: TestDb::create().await,
        topics: Topics::named_only(3),
    };
    stage.insert(&Event::new(1, 1, 1)).await;
    stage.insert(&Event::new(1, 1, 2)).await;
    let relay = stage.relay().await;
    let blocked = relay.metrics.blocked.with_label_values(&["topic_missing"]);
    until("the alarm is on", || async { blocked.get() == 1 }).await;
    let ops = relay.ops;
    let alive = tokio::task::spawn_blocking(move || healthcheck(ops)).await;
    assert!(alive.expect("no panic"), "health answers");
    assert_eq!(stage.count("outbox").await, 2);
    assert_eq!(
        stage.count("outbox_parked").await,
        0,
        "waiting spends no attempts"
    );

    stage.topics.make().await;
    stage.outbox_is_empty().await;
    until("the alarm is off", || async { blocked.get() == 0 }).await;
    assert_eq!(stage.topics.read_events(2).await.len(), 2);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p11_with_kafka_away_the_relay_still_stops_and_keeps_the_rows() {
    let stage = Stage::set().await;
    stage.insert(&Event::new(1, 1, 1)).await;
    // Nobody listens on the discard port.
    let cfg = stage.config(&["--kafka-brokers=127.0.0.1:9", "--drain-secs=2"]);
    let relay = stage.relay_with(cfg.clone(), Kafka::new(&cfg.kafka)).await;
    let blocked = relay.metrics.blocked.with_label_values(&["broker_away"]);
    until("the alarm is on", || async { blocked.get() == 1 }).await;
    let begun = Instant::now();
    assert_eq!(relay.stop().await, Drain::Complete, "nothing was in flight");
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert_eq!(stage.count("outbox").await, 1);
    assert!(stage.owners().await.is_empty());
}
