//! A topic that cannot be written to holds back its own events, and the later events of their returns. Every other event
//! flows, and nothing is forgotten.

use std::sync::atomic::Ordering;
use std::time::Duration;

use relay::publisher::kafka::KafkaPublisher;
use shared::domain::ids::{OrderId, Shard};
use sqlx::Executor;
use uuid::Uuid;

use crate::harness::{
    Event, FaultyPublisher, Fixture, RunningRelay, assert_history, history, until,
};

/// The name of a topic that does not exist.
fn missing() -> String {
    format!("test-{}.mistyped", Uuid::now_v7().simple())
}

fn blocked(relay: &RunningRelay, reason: &str) -> i64 {
    relay.metrics.blocked.with_label_values(&[reason]).get()
}

async fn waits(fixture: &Fixture, rows: i64) {
    until("only the events behind the topic wait", || async {
        fixture.count("outbox").await == rows
    })
    .await;
}

/// One shard, so that the rows stand behind each other. Order 7's return has its first event in the missing topic.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_row_of_a_missing_topic_holds_back_only_its_own_return() {
    let fixture = Fixture::create().await;
    let topic = missing();
    let of_shard = (0..).filter(|order| Shard::of(OrderId(*order)) == Shard(0));
    let orders: Vec<i64> = of_shard.take(52).collect();
    let behind = [
        Event::new(orders[0], 7_000, 1).to(&topic),
        Event::new(orders[0], 7_000, 2),
    ];
    let others: Vec<Event> = (1..=2)
        .flat_map(|seq| {
            orders[1..]
                .iter()
                .map(move |order| Event::new(*order, *order, seq))
        })
        .collect();
    fixture.insert_all(&behind).await;
    fixture.insert_all(&others).await;
    let relay = fixture.relay().await;
    waits(&fixture, 2).await;
    let received = fixture.topics.read_events(others.len()).await;
    assert_eq!(assert_history(&received, &others), 0);
    assert_eq!(blocked(&relay, "topic_missing"), 1);
    assert_eq!(blocked(&relay, "broker_away"), 0);
    assert_eq!(
        fixture.count("outbox_parked").await,
        0,
        "waiting parks no row"
    );
    let page = relay.ops_page("/readyz?verbose").await;
    assert!(page.contains(&topic), "{page}");
    let page = relay.ops_page("/metrics").await;
    let series =
        format!("outbox_relay_troubled_topic{{reason=\"topic_missing\",topic=\"{topic}\"}} 1");
    assert!(page.contains(&series), "{page}");

    fixture.topics.create_one(&topic).await;
    fixture.outbox_is_empty().await;
    until("the gauge is 0", || async {
        blocked(&relay, "topic_missing") == 0
    })
    .await;
    let page = relay.ops_page("/metrics").await;
    assert!(!page.contains(&topic), "{page}");
    relay.stop().await;
}

/// Names that Kafka never accepts, as an older program may have written them.
#[tokio::test(flavor = "multi_thread")]
async fn p3_rows_with_an_illegal_topic_name_wait_for_a_person_and_everything_else_flows() {
    let fixture = Fixture::create().await;
    let illegal = ["order returns", "..", "", "a/b"];
    let bad: Vec<Event> = std::iter::zip(0.., illegal)
        .map(|(order, topic)| Event::new(order, order, 1).to(topic))
        .collect();
    let events = history(100..120, 3);
    fixture.insert_all(&bad).await;
    fixture.insert_all(&events).await;
    let relay = fixture.relay().await;
    waits(&fixture, 4).await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&received, &events), 0);
    assert_eq!(blocked(&relay, "topic_illegal"), 1);
    assert_eq!(fixture.count("outbox_parked").await, 0);
    relay.stop().await;
}

/// More rows than may be in flight, and more than one read returns.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p12_many_rows_of_a_missing_topic_fill_no_window_and_are_not_read_again_and_again() {
    const HELD: i64 = 12_000;
    let fixture = Fixture::create().await;
    let topic = missing();
    let held: Vec<Event> = (0..HELD).map(|n| Event::new(n, n, 1).to(&topic)).collect();
    let followers: Vec<Event> = (0..HELD / 4).map(|n| Event::new(n, n, 2)).collect();
    fixture.insert_all(&held).await;
    fixture.insert_all(&followers).await;
    let waiting = HELD + HELD / 4;
    let relay = fixture.relay().await;
    let first = history(100_000..100_100, 2);
    fixture.insert_all(&first).await;
    waits(&fixture, waiting).await;

    // The rows are older than a late commit now: nothing but their number is asked for.
    until("they are passed over", || async {
        fixture.returns_no_rows("read_pending").await
    })
    .await;
    let began = std::time::Instant::now();
    let later = history(200_000..200_100, 2);
    fixture.insert_all(&later).await;
    waits(&fixture, waiting).await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let received = fixture.topics.read_events(first.len() + later.len()).await;
    assert_history(&received, &[first, later].concat());

    fixture.topics.create_one(&topic).await;
    fixture.outbox_is_empty().await;
    relay.stop().await;
}

/// The row with the lowest id commits when everything above it is passed over already.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_row_that_commits_late_below_rows_of_a_missing_topic_is_sent() {
    let fixture = Fixture::create().await;
    let topic = missing();
    let mut open = fixture.pool().begin().await.expect("begin");
    let late = Event::new(0, 0, 1);
    fixture.insert_on(&mut *open, &late).await;
    let held: Vec<Event> = (0..2_000)
        .map(|n| Event::new(n, n + 1, 1).to(&topic))
        .collect();
    fixture.insert_all(&held).await;
    let relay = fixture.relay().await;
    until("they are passed over", || async {
        fixture.returns_no_rows("read_pending").await
    })
    .await;
    open.commit().await.expect("commit");
    waits(&fixture, 2_000).await;
    let received = fixture.topics.read_events(1).await;
    assert_eq!(assert_history(&received, &[late]), 0);
    relay.stop().await;
}

/// The producer is replaced again and again, so that the relay often knows no topic at all, as after a start.
#[tokio::test(flavor = "multi_thread")]
async fn p3_healthy_topics_flow_beside_any_number_of_missing_ones_also_after_a_restart() {
    const MISSING: i64 = 100;
    let fixture = Fixture::create().await;
    let names: Vec<String> = (0..MISSING).map(|_| missing()).collect();
    let bad: Vec<Event> = (0..)
        .zip(&names)
        .map(|(n, topic)| Event::new(n, n, 1).to(topic))
        .collect();
    let mut events = history(1_000..1_030, 2);
    fixture.insert_all(&bad).await;
    fixture.insert_all(&events).await;
    let cfg = fixture.config(&[]);
    let publisher = FaultyPublisher::breaking_at_each(KafkaPublisher::new(&cfg.kafka), 25);
    let producers = publisher.producers.clone();
    let relay = fixture.relay_with(cfg, publisher).await;
    waits(&fixture, MISSING).await;
    let more = history(2_000..2_030, 2);
    fixture.insert_all(&more).await;
    waits(&fixture, MISSING).await;
    assert!(producers.load(Ordering::Relaxed) > 2);
    let series = relay.ops_page("/metrics").await;
    let series = series.matches("outbox_relay_troubled_topic{").count();
    assert!((64..100).contains(&series), "the bound: {series}");
    events.extend(more);
    let received = fixture.topics.read_events(events.len()).await;
    assert_history(&received, &events);

    // Also the topics that the relay has not asked for.
    for name in &names {
        fixture.topics.create_one(name).await;
    }
    fixture.outbox_is_empty().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_troubled_topic_about_which_no_broker_answers_stops_no_other() {
    let fixture = Fixture::create().await;
    let topic = missing();
    let cfg = fixture.config(&[]);
    let publisher = FaultyPublisher::silent_about(KafkaPublisher::new(&cfg.kafka), &topic);
    let (is_silent, unanswered) = (publisher.denied.clone(), publisher.unanswered.clone());
    let relay = fixture.relay_with(cfg, publisher).await;
    fixture.insert(&Event::new(7, 7, 1).to(&topic)).await;
    until("the topic is in trouble", || async {
        blocked(&relay, "topic_missing") == 1
    })
    .await;
    is_silent.store(true, Ordering::Relaxed);
    until("its retry was not answered", || async {
        unanswered.load(Ordering::Relaxed) > 1
    })
    .await;
    let events = history(100..120, 2);
    fixture.insert_all(&events).await;
    waits(&fixture, 1).await;
    assert_eq!(
        (
            blocked(&relay, "broker_away"),
            blocked(&relay, "topic_missing")
        ),
        (0, 1)
    );
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&received, &events), 0);
    relay.stop().await;
}

/// The second event of a return commits late, below the rows that reads pass over; the third one commits above them.
#[tokio::test(flavor = "multi_thread")]
async fn p4_an_event_that_commits_late_below_held_rows_goes_before_the_next_of_its_return() {
    let fixture = Fixture::create().await;
    let topic = missing();
    let relay = fixture.relay().await;
    let events: Vec<Event> = (1..=3)
        .map(|seq| Event::new(5, 5, seq).to(&fixture.topics.status))
        .collect();
    fixture.insert(&events[0]).await;
    fixture.outbox_is_empty().await;
    let mut open = fixture.pool().begin().await.expect("begin");
    fixture.insert_on(&mut *open, &events[1]).await;
    let held: Vec<Event> = (0..100)
        .map(|n| Event::new(5, 1_000 + n, 1).to(&topic))
        .collect();
    fixture.insert_all(&held).await;
    until("they are passed over", || async {
        relay.metrics.held_back_rows.get() == 100
    })
    .await;
    open.commit().await.expect("commit");
    fixture.insert(&events[2]).await;
    waits(&fixture, 100).await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&received, &events), 0);
    relay.stop().await;
}

/// An operator puts a row of another shard back, which has no rows of the topic.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_redrive_in_one_shard_forgets_no_held_rows_of_another() {
    let fixture = Fixture::create().await;
    let topic = missing();
    let shard = Shard::of(OrderId(5));
    let other = (6..).find(|order| Shard::of(OrderId(*order)) != shard);
    let other = other.expect("sixteen shards");
    fixture.insert(&Event::new(other, other, 1)).await;
    for sql in [
        "INSERT INTO outbox_parked SELECT outbox.*, 'test', 1, UTC_TIMESTAMP(6) FROM outbox",
        "DELETE FROM outbox",
    ] {
        fixture.pool().execute(sql).await.expect(sql);
    }
    let relay = fixture.relay().await;
    fixture.insert(&Event::new(5, 5, 1).to(&topic)).await;
    until("it is passed over", || async {
        relay.metrics.held_back_rows.get() == 1
    })
    .await;
    fixture.redrive(Shard::of(OrderId(other))).await;
    waits(&fixture, 1).await;
    fixture.topics.create_one(&topic).await;
    fixture.outbox_is_empty().await;
    relay.stop().await;
}

/// There may be millions: one statement must not count them all.
#[tokio::test(flavor = "multi_thread")]
async fn p12_held_rows_are_counted_in_bounded_chunks() {
    const HELD: i64 = 25_000;
    let fixture = Fixture::create().await;
    let topic = missing();
    let held: Vec<Event> = (0..HELD).map(|n| Event::new(5, n, 1).to(&topic)).collect();
    fixture.insert_all(&held).await;
    let relay = fixture.relay().await;
    until("all are passed over", || async {
        relay.metrics.held_back_rows.get() == HELD
    })
    .await;
    let largest = until("all are counted", || async {
        let (statements, largest): (i64, u64) = sqlx::query_as(
            "SELECT COUNT(*), CAST(COALESCE(MAX(rows_examined), 0) AS UNSIGNED) \
             FROM performance_schema.events_statements_history \
             WHERE current_schema = DATABASE() AND sql_text LIKE '/* read_ids */%' AND rows_examined > 0",
        )
        .fetch_one(fixture.pool())
        .await
        .expect("the last statements of each session");
        (statements >= 3).then_some(largest)
    })
    .await;
    assert!(largest <= 10_000, "rows of one statement: {largest}");
    assert_eq!(relay.metrics.held_back_rows.get(), HELD, "nothing changed");
    relay.stop().await;
}

/// As an operator's `outbox move` leaves them, when the last word about the old topic comes later.
#[tokio::test(flavor = "multi_thread")]
async fn p12_a_topic_of_which_no_row_waits_is_in_trouble_no_more() {
    let fixture = Fixture::create().await;
    let topic = missing();
    fixture.insert(&Event::new(5, 5, 1).to(&topic)).await;
    fixture
        .insert(&Event::new(6, 6, 1).to("order returns"))
        .await;
    let relay = fixture.relay().await;
    let troubled = || {
        (
            blocked(&relay, "topic_missing"),
            blocked(&relay, "topic_illegal"),
            relay.metrics.held_back_rows.get(),
        )
    };
    until("both are passed over", || async { troubled() == (1, 1, 2) }).await;
    let sql = "DELETE FROM outbox";
    fixture.pool().execute(sql).await.expect(sql);
    until("no topic is in trouble", || async {
        troubled() == (0, 0, 0)
    })
    .await;
    relay.stop().await;
}
