//! A partition that acknowledges nothing, and a topic that is deleted under the relay: all others flow, and afterwards
//! everything is there, in order.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use relay::publisher::kafka::KafkaPublisher;

use crate::harness::{
    Event, FaultyPublisher, Fixture, RunningRelay, assert_history, history, until,
};

const RETURNS: i64 = 1_000;

async fn waits(fixture: &Fixture, what: &str, rows: i64) {
    until(what, || async { fixture.count("outbox").await == rows }).await;
}

/// The number of rows that wait for a topic.
async fn rows_of(fixture: &Fixture, topic: &str) -> i64 {
    sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE topic = ?")
        .bind(topic)
        .fetch_one(fixture.pool())
        .await
        .expect("count")
}

fn restarts(relay: &RunningRelay) -> u64 {
    let causes = ["undelivered", "fatal", "brokers_forgotten", "lease_lost"];
    let count = |cause| relay.metrics.restarts.with_label_values(&[cause]).get();
    causes.into_iter().map(count).sum()
}

/// From now on the topic acknowledges nothing.
fn stall(stalled: &Mutex<HashSet<String>>, topic: &str) {
    let mut stalled = stalled.lock().expect("not poisoned");
    stalled.insert(topic.to_owned());
}

/// One topic after the other has partitions without a leader, and more records than may be in flight.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_partitions_that_acknowledge_nothing_do_not_stop_the_others_and_continue_in_order() {
    let fixture = Fixture::create().await;
    let healthy = format!("{}.healthy", fixture.topics.status);
    fixture.topics.create_one(&healthy).await;
    let cfg = fixture.config(&[]);
    let publisher = FaultyPublisher::counting(KafkaPublisher::new(&cfg.kafka));
    let stalled_topics = publisher.stalled_topics.clone();
    let relay = fixture.relay_with(cfg, publisher).await;
    let mut events = history(0..RETURNS, 1);
    fixture.insert_all(&events).await;
    fixture.outbox_is_empty().await;
    let blocked = &relay.metrics.blocked;
    let blocked = blocked.with_label_values(&["partition_stalled"]);
    let mut waiting = 0;
    let (status, returns) = (&fixture.topics.status, &fixture.topics.returns);
    for (topic, first) in [(status, 10_000), (returns, 20_000)] {
        stall(&stalled_topics, topic);
        let round = |seq| (0..RETURNS).map(move |id| Event::new(id, first + id, seq).to(topic));
        let stalled: Vec<Event> = (1..=12).flat_map(round).collect();
        // They come faster than a partition counts as stalled.
        fixture.insert_at_once(&stalled).await;
        waiting += i64::try_from(stalled.len()).expect("small");
        // Each of these would wait behind the others for ever.
        for more in [first * 10, first * 10 + 1_000] {
            let more: Vec<Event> = (more..more + 400)
                .map(|id| Event::new(id, id, 1).to(&healthy))
                .collect();
            fixture.insert_all(&more).await;
            waits(&fixture, "all others are sent", waiting).await;
        }
        until("the gauge is 1", || async { blocked.get() == 1 }).await;
        events.extend(stalled);
    }
    let unsettled = relay.metrics.unsettled_rows.get();
    assert!(unsettled <= 2 * 8_192, "the window is bounded: {unsettled}");
    let page = relay.ops_page("/readyz?verbose").await;
    assert!(page.contains("partition_stalled"), "{page}");

    stalled_topics.lock().expect("not poisoned").clear();
    fixture.insert(&Event::new(5, 5, 1).to(&healthy)).await;
    let last = history(300_000..300_010, 2);
    fixture.insert_all(&last).await;
    fixture.outbox_is_empty().await;
    until("the gauge is 0", || async { blocked.get() == 0 }).await;
    events.extend(last);
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(
        assert_history(&received, &events),
        0,
        "nothing is sent again"
    );
    assert_eq!(
        (restarts(&relay), fixture.count("outbox_parked").await),
        (0, 0)
    );
    relay.stop().await;
}

/// A refused batch holds records of a partition that acknowledges nothing, and of others.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_poison_record_is_isolated_and_parked_beside_partitions_that_acknowledge_nothing() {
    const STALLED: i64 = 20;
    let fixture = Fixture::create().await;
    let cfg = fixture.config(&[]);
    let kafka = KafkaPublisher::new(&cfg.kafka);
    let publisher = FaultyPublisher::refusing(kafka, b"poison");
    let stalled_topics = publisher.stalled_topics.clone();
    let relay = fixture.relay_with(cfg, publisher).await;
    let mut events = history(0..STALLED, 1);
    fixture.insert_all(&events).await;
    fixture.outbox_is_empty().await;
    stall(&stalled_topics, &fixture.topics.status);
    let round = |seq| (0..STALLED).map(move |id| Event::new(id, id, seq));
    // The event before the poison record is among them, in a partition of another topic.
    let before = Event::new(1_007, 1_007, 1).to(&fixture.topics.status);
    let stalled: Vec<Event> = round(2).chain([before]).collect();
    fixture.insert_all(&stalled).await;
    until("they are in flight", || async {
        relay.metrics.unsettled_rows.get() == STALLED + 1
    })
    .await;
    let mut batch: Vec<Event> = (1_000..1_040).map(|n| Event::new(n, n, 1)).collect();
    batch.remove(7);
    let mut poison = Event::new(1_007, 1_007, 2).to(&fixture.topics.returns);
    poison.payload = b"poison".to_vec();
    let refused: Vec<Event> = [batch, round(3).collect()].concat();
    fixture
        .insert_at_once(&[vec![poison], refused.clone()].concat())
        .await;
    waits(&fixture, "all others are sent", 2 * STALLED + 1).await;
    assert_eq!(fixture.count("outbox_parked").await, 1);

    stalled_topics.lock().expect("not poisoned").clear();
    let last = history(30_000..30_010, 2);
    fixture.insert_all(&last).await;
    fixture.outbox_is_empty().await;
    events.extend([stalled, refused, last].concat());
    let received = fixture.topics.read_events(events.len()).await;
    assert_history(&received, &events);
    relay.stop().await;
}

/// The relay believes that each topic has one partition, as if the others had been added since it asked.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_to_a_topic_are_noticed_with_the_first_record_in_one_of_them() {
    let fixture = Fixture::create().await;
    let cfg = fixture.config(&[]);
    let publisher = FaultyPublisher::outdated(KafkaPublisher::new(&cfg.kafka));
    let described = publisher.described.clone();
    let relay = fixture.relay_with(cfg, publisher).await;
    let mut events = history(0..50, 1);
    fixture.insert_all(&events).await;
    until("the topic is described again", || async {
        described.load(Ordering::Relaxed) == 2
    })
    .await;
    let more = history(100..150, 1);
    fixture.insert_all(&more).await;
    fixture.outbox_is_empty().await;
    events.extend(more);
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&received, &events), 0);
    assert_eq!(described.load(Ordering::Relaxed), 2, "no more than needed");
    assert_eq!(restarts(&relay), 0);
    relay.stop().await;
}

/// While the topic of new returns is away, the other one flows. What Kafka had acknowledged before is gone with the topic;
/// everything else is in the new one.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_topic_that_is_deleted_under_load_and_made_again_gets_all_later_events_in_order() {
    let fixture = Fixture::create().await;
    let relay = fixture.relay().await;
    let before = history(0..RETURNS, 1);
    fixture.insert_all(&before).await;
    fixture.outbox_is_empty().await;
    // Records are in flight to it while it is deleted.
    let (meanwhile, topic) = (history(5_000..5_500, 1), &fixture.topics.returns);
    tokio::join!(fixture.topics.delete_one(topic), async {
        for some in meanwhile.chunks(50) {
            fixture.insert_all(some).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let healthy: Vec<Event> = (2..=3)
        .flat_map(|seq| (0..RETURNS).map(move |id| Event::new(id, id, seq)))
        .collect();
    fixture.insert_all(&healthy).await;
    until("the other topic flows", || async {
        rows_of(&fixture, &fixture.topics.status).await == 0
    })
    .await;
    // The broker may acknowledge records for a moment after it has reported that the topic is gone. So more are sent if
    // none of them was refused, and those that must not be lost come when the topic is known to be away.
    let next = AtomicI64::new(6_000);
    until("the topic is known to be away", || async {
        if relay.metrics.unsettled_rows.get() == 0 {
            let id = next.fetch_add(1, Ordering::Relaxed);
            fixture.insert(&Event::new(id, id, 1)).await;
        }
        let missing = relay.metrics.blocked.with_label_values(&["topic_missing"]);
        missing.get() == 1
    })
    .await;
    let held = history(10_000..10_500, 2);
    fixture.insert_all(&held).await;

    fixture.topics.create_one(topic).await;
    let after = history(20_000..20_500, 2);
    fixture.insert_all(&after).await;
    fixture.outbox_is_empty().await;
    assert_eq!(
        fixture.count("outbox_parked").await,
        0,
        "no record is to blame"
    );
    let count = restarts(&relay);
    assert!(
        count <= 5,
        "no restart loop: {count} producers were replaced"
    );
    let events = [held, after].concat();
    let is_later = |id: i64| (10_000..10_500).contains(&id) || id >= 20_000;
    let all = fixture.topics.read_until("the last events", {
        let mut missing = events.len() + healthy.len();
        let mut seen = HashSet::new();
        move |record| {
            let counts =
                is_later(record.return_id()) || (record.return_id() < RETURNS && record.seq() > 1);
            if counts && seen.insert(record.event_id().to_owned()) {
                missing -= 1;
            }
            missing == 0
        }
    });
    let all = all.await;
    let later: Vec<_> = all
        .into_iter()
        .filter(|record| is_later(record.return_id()))
        .collect();
    assert_history(&later, &events);
    relay.stop().await;
}
