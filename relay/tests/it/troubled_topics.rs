//! A topic that cannot be written to holds back its own events, and the later events of their returns. Every other event
//! flows, and nothing is forgotten.

use std::time::Duration;

use shared::domain::ids::{OrderId, Shard};
use uuid::Uuid;

use crate::harness::{Event, Fixture, RunningRelay, assert_history, history, until};

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
        fixture.rows_sent("read_pending").await == 0
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
        fixture.rows_sent("read_pending").await == 0
    })
    .await;
    open.commit().await.expect("commit");
    waits(&fixture, 2_000).await;
    let received = fixture.topics.read_events(1).await;
    assert_eq!(assert_history(&received, &[late]), 0);
    relay.stop().await;
}
