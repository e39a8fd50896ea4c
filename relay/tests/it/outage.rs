//! Kafka is away or a topic is missing: the relay waits, reports it, stays healthy and loses nothing.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use relay::Drain;
use relay::publisher::kafka::KafkaPublisher;
use shared::runtime::ops::healthcheck;
use shared::test_support::TestDb;

use crate::harness::{
    BrokerProxy, Event, FaultyPublisher, Fixture, Topics, assert_history, history, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_missing_topic_holds_rows_back_until_it_exists() {
    let fixture = Fixture {
        db: TestDb::create().await,
        topics: Topics::named_only(3),
    };
    let events = history(1..2, 2);
    fixture.insert_all(&events).await;
    let relay = fixture.relay().await;
    let blocked = relay.metrics.blocked.with_label_values(&["topic_missing"]);
    until("the gauge is 1", || async { blocked.get() == 1 }).await;
    let ops = relay.ops;
    let alive = tokio::task::spawn_blocking(move || healthcheck(ops)).await;
    assert!(alive.expect("no panic"), "the health check succeeds");
    assert_eq!(fixture.count("outbox").await, 2);
    assert_eq!(
        fixture.count("outbox_parked").await,
        0,
        "waiting parks no row"
    );

    fixture.topics.create_in_kafka().await;
    fixture.outbox_is_empty().await;
    until("the gauge is 0", || async { blocked.get() == 0 }).await;
    let received = fixture.topics.read_events(2).await;
    assert_eq!(assert_history(&received, &events), 0);
    relay.stop().await;
}

/// A broker revokes the right to write and grants it again: first deliveries fail, then the request for the topic's limit.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_refused_authorization_holds_rows_back_until_it_is_granted() {
    let fixture = Fixture::create().await;
    let cfg = fixture.config(&[]);
    let publisher = FaultyPublisher::denying(KafkaPublisher::new(&cfg.kafka));
    let denied = publisher.denied.clone();
    let relay = fixture.relay_with(cfg, publisher).await;
    let mut events = history(0..20, 2);
    fixture.insert_all(&events).await;
    fixture.outbox_is_empty().await;
    denied.store(true, Ordering::Relaxed);
    let more: Vec<Event> = (0..20).map(|id| Event::new(id, id, 3)).collect();
    fixture.insert_all(&more).await;
    events.extend(more);
    let blocked = relay.metrics.blocked.with_label_values(&["not_authorized"]);
    until("the gauge is 1", || async { blocked.get() == 1 }).await;
    let ops = relay.ops;
    let alive = tokio::task::spawn_blocking(move || healthcheck(ops)).await;
    assert!(alive.expect("no panic"), "the health check succeeds");
    assert_eq!(fixture.count("outbox").await, 20);

    denied.store(false, Ordering::Relaxed);
    fixture.outbox_is_empty().await;
    until("the gauge is 0", || async { blocked.get() == 0 }).await;
    assert_eq!(
        fixture.count("outbox_parked").await,
        0,
        "no record is to blame"
    );
    let received = fixture.topics.read_events(events.len()).await;
    assert_history(&received, &events);
    relay.stop().await;
}

/// The response of a broker that is stopping or starting may contain no broker, not even itself. The client accepts it.
/// Whether it then asks the bootstrap servers or never connects again is a race between two of its threads, so the test
/// has several rounds.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_producer_that_lost_its_list_of_brokers_sends_again() {
    const ROUNDS: i64 = 6;
    let fixture = Fixture::create().await;
    let proxy = BrokerProxy::start().await;
    let events = history(0..ROUNDS, 2);
    let mut forgotten = 0;
    let (firsts, seconds) = events.split_at(events.len() / 2);
    for (first, second) in std::iter::zip(firsts, seconds) {
        let brokers = format!("--kafka-brokers={}", proxy.brokers);
        let relay = fixture.relay_under(&[&brokers]).await;
        fixture.insert(first).await;
        fixture.outbox_is_empty().await;
        let before = proxy.hide_the_broker();
        // Its topic is new to this producer, which requests the metadata.
        fixture.insert(second).await;
        until("a response without a broker", || async {
            proxy.hidden() > before
        })
        .await;
        proxy.show_the_broker();
        fixture.outbox_is_empty().await;
        let restarts = &relay.metrics.restarts;
        forgotten += restarts.with_label_values(&["brokers_forgotten"]).get();
        relay.stop().await;
    }
    eprintln!("{forgotten} of {ROUNDS} producers lost all brokers");
    assert_eq!(
        fixture.count("outbox_parked").await,
        0,
        "no record is to blame"
    );
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(
        assert_history(&received, &events),
        0,
        "nothing is sent again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p11_with_kafka_away_the_relay_still_stops_and_keeps_the_rows() {
    let fixture = Fixture::create().await;
    fixture.insert(&Event::new(1, 1, 1)).await;
    // No server listens on the discard port.
    let flags = ["--kafka-brokers=127.0.0.1:9", "--drain-secs=2"];
    let relay = fixture.relay_under(&flags).await;
    let blocked = relay.metrics.blocked.with_label_values(&["broker_away"]);
    until("the gauge is 1", || async { blocked.get() == 1 }).await;
    let begun = Instant::now();
    assert_eq!(relay.stop().await, Drain::Complete, "nothing was in flight");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(fixture.count("outbox").await, 1);
    assert!(fixture.owners().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn p11_a_relay_that_stops_with_records_in_flight_reports_how_many_and_leaves_their_rows() {
    let fixture = Fixture::create().await;
    let proxy = BrokerProxy::start().await;
    let brokers = format!("--kafka-brokers={}", proxy.brokers);
    let relay = fixture.relay_under(&[&brokers, "--drain-secs=2"]).await;
    let mut events = history(0..1, 2);
    fixture.insert_all(&events).await;
    fixture.outbox_is_empty().await;
    proxy.pause();
    let unacknowledged = history(1..11, 1);
    fixture.insert_all(&unacknowledged).await;
    events.extend(unacknowledged);
    let unsettled = relay.metrics.unsettled_rows.clone();
    until("they are in flight", || async { unsettled.get() == 10 }).await;
    let begun = Instant::now();
    assert_eq!(relay.stop().await, Drain::LeftInFlight(10));
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(fixture.count("outbox").await, 10);
    assert!(
        fixture.owners().await.is_empty(),
        "another relay may start at once"
    );
    let successor = fixture.relay().await;
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_history(&received, &events);
    successor.stop().await;
}
