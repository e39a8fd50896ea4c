//! Kafka away or a topic missing: wait, say so, answer health, give nothing up.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use relay::Drain;
use relay::publisher::Kafka;
use shared::runtime::ops::healthcheck;
use shared::test_support::TestDb;

use crate::harness::{Door, Event, Faulty, Stage, Topics, assert_history, history, until};

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_missing_topic_holds_rows_back_until_it_is_there() {
    let stage = Stage {
        db: TestDb::create().await,
        topics: Topics::named_only(3),
    };
    let events = history(1..2, 2);
    stage.insert_all(&events).await;
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
    let seen = stage.topics.read_events(2).await;
    assert_eq!(assert_history(&seen, &events), 0);
    relay.stop().await;
}

/// As a broker does that has withdrawn our right to write, and gives it back: deliveries fail, then the question
/// about the topic does.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_refused_authorization_holds_rows_back_until_it_is_given() {
    let stage = Stage::set().await;
    let cfg = stage.config(&[]);
    let publisher = Faulty::denying(Kafka::new(&cfg.kafka));
    let denied = publisher.denied.clone();
    let relay = stage.relay_with(cfg, publisher).await;
    let mut events = history(0..20, 2);
    stage.insert_all(&events).await;
    stage.outbox_is_empty().await;
    denied.store(true, Ordering::Relaxed);
    let more: Vec<Event> = (0..20).map(|id| Event::new(id, id, 3)).collect();
    stage.insert_all(&more).await;
    events.extend(more);
    let blocked = relay.metrics.blocked.with_label_values(&["not_authorized"]);
    until("the alarm is on", || async { blocked.get() == 1 }).await;
    let ops = relay.ops;
    let alive = tokio::task::spawn_blocking(move || healthcheck(ops)).await;
    assert!(alive.expect("no panic"), "health answers");
    assert_eq!(stage.count("outbox").await, 20);

    denied.store(false, Ordering::Relaxed);
    stage.outbox_is_empty().await;
    until("the alarm is off", || async { blocked.get() == 0 }).await;
    assert_eq!(stage.count("outbox_parked").await, 0, "nobody is to blame");
    let seen = stage.topics.read_events(events.len()).await;
    assert_history(&seen, &events);
    relay.stop().await;
}

/// A broker that is stopping or starting may name no broker at all, its own address neither. The client believes it;
/// whether it then asks the bootstrap servers or is silent for ever is a race between two of its threads, so: often.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_producer_that_was_told_of_no_broker_sends_again_when_it_could() {
    const ROUNDS: i64 = 6;
    let stage = Stage::set().await;
    let door = Door::open_before_the_broker().await;
    let events = history(0..ROUNDS, 2);
    let mut forgot = 0;
    let (firsts, seconds) = events.split_at(events.len() / 2);
    for (first, second) in std::iter::zip(firsts, seconds) {
        let brokers = format!("--kafka-brokers={}", door.brokers);
        let relay = stage.relay_under(&[&brokers]).await;
        stage.insert(first).await;
        stage.outbox_is_empty().await;
        let told = door.hide_the_broker();
        // To a topic that this producer must first ask about.
        stage.insert(second).await;
        until("it is told of no broker", || async { door.told() > told }).await;
        door.show_the_broker();
        stage.outbox_is_empty().await;
        let restarts = &relay.metrics.restarts;
        forgot += restarts.with_label_values(&["brokers_forgotten"]).get();
        relay.stop().await;
    }
    eprintln!("{forgot} of {ROUNDS} producers forgot all brokers");
    assert_eq!(stage.count("outbox_parked").await, 0, "nobody is to blame");
    let seen = stage.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&seen, &events), 0, "nothing is sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn p11_with_kafka_away_the_relay_still_stops_and_keeps_the_rows() {
    let stage = Stage::set().await;
    stage.insert(&Event::new(1, 1, 1)).await;
    // Nobody listens on the discard port.
    let flags = ["--kafka-brokers=127.0.0.1:9", "--drain-secs=2"];
    let relay = stage.relay_under(&flags).await;
    let blocked = relay.metrics.blocked.with_label_values(&["broker_away"]);
    until("the alarm is on", || async { blocked.get() == 1 }).await;
    let begun = Instant::now();
    assert_eq!(relay.stop().await, Drain::Complete, "nothing was in flight");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(stage.count("outbox").await, 1);
    assert!(stage.owners().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn p11_a_relay_that_stops_with_records_in_flight_tells_how_many_and_leaves_their_rows() {
    let stage = Stage::set().await;
    let door = Door::open_before_the_broker().await;
    let brokers = format!("--kafka-brokers={}", door.brokers);
    let relay = stage.relay_under(&[&brokers, "--drain-secs=2"]).await;
    let mut events = history(0..1, 2);
    stage.insert_all(&events).await;
    stage.outbox_is_empty().await;
    door.close();
    let unheard = history(1..11, 1);
    stage.insert_all(&unheard).await;
    events.extend(unheard);
    let unsettled = relay.metrics.unsettled_rows.clone();
    until("they are in flight", || async { unsettled.get() == 10 }).await;
    let begun = Instant::now();
    assert_eq!(relay.stop().await, Drain::LeftInFlight(10));
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(stage.count("outbox").await, 10);
    assert!(stage.owners().await.is_empty(), "another may begin at once");
    let heir = stage.relay().await;
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(events.len()).await;
    assert_history(&seen, &events);
    heir.stop().await;
}
