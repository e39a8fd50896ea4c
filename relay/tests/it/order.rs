//! The events of a return stay in order, with any order of the commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use relay::pending::RowKey;
use relay::publisher::kafka::KafkaPublisher;
use relay::store::outbox;
use shared::domain::ids::{EventId, OrderId, Shard};
use shared::test_support::keep_when_silent;
use sqlx::{Connection, Executor, Row};

use crate::harness::{
    BrokerProxy, Event, FaultyPublisher, Fixture, assert_history, history, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn p4_events_of_a_return_stay_in_order_over_many_returns_and_shards() {
    const RETURNS: i64 = 400;
    const SEQS: i32 = 6;
    let fixture = Arc::new(Fixture::create().await);
    let relay = fixture.relay().await;
    let of_all = |seq| (0..RETURNS).map(move |order| Event::new(order, order + 5_000, seq));
    let events: Vec<Event> = (1..=SEQS).flat_map(of_all).collect();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (fixture, mut events) = (Arc::clone(&fixture), events.clone());
            events.retain(|event| event.order_id % 8 == writer);
            tokio::spawn(async move {
                for event in &events {
                    fixture.insert(event).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(2_400).await;
    let again = assert_history(&received, &events);
    assert_eq!(again, 0, "no duplicates without a failure");
    relay.stop().await;
}

/// Backlogs of several full reads, followed at once by single events of the same returns. Each change of the send mode
/// changes the producer.
#[tokio::test(flavor = "multi_thread")]
async fn p4_order_holds_when_single_events_follow_a_backlog_and_a_backlog_follows_single_events() {
    const RETURNS: i64 = 100;
    const ROUNDS: i32 = 6;
    const BURST: i32 = 24;
    let fixture = Fixture::create().await;
    let cfg = fixture.config(&[]);
    let publisher = FaultyPublisher::counting(KafkaPublisher::new(&cfg.kafka));
    let mode_changes = publisher.mode_changes.clone();
    let relay = fixture.relay_with(cfg, publisher).await;
    let of_all = |seq: i32| (0..RETURNS).map(move |order| Event::new(order, order + 5_000, seq));
    let mut events = Vec::new();
    for round in 0..ROUNDS {
        let first = round * (BURST + 1) + 1;
        let burst: Vec<Event> = (first..first + BURST).flat_map(of_all).collect();
        fixture.insert_at_once(&burst).await;
        events.extend(burst);
        // In every other round the relay catches up before the single events. On a busy machine it might otherwise see
        // one long backlog.
        if round % 2 == 1 {
            fixture.outbox_is_empty().await;
        }
        for event in of_all(first + BURST) {
            fixture.insert(&event).await;
            events.push(event);
        }
    }
    fixture.outbox_is_empty().await;
    let mode_changes = mode_changes.load(Ordering::Relaxed);
    assert!(
        mode_changes > 1,
        "both modes, and back: {mode_changes} changes"
    );
    let received = fixture.topics.read_events(events.len()).await;
    let again = assert_history(&received, &events);
    assert_eq!(again, 0, "no duplicates without a failure");
    relay.stop().await;
}

/// There is no order between two producers, so a backlog uses the producer whose records are still in flight. It must not
/// wait for these records either: one stalled partition would stop the others.
#[tokio::test(flavor = "multi_thread")]
async fn p4_a_backlog_behind_a_record_in_flight_is_sent_in_the_send_mode_of_that_record() {
    const RETURNS: i64 = 500;
    let fixture = Fixture::create().await;
    let proxy = BrokerProxy::start().await;
    let cfg = fixture.config(&[&format!("--kafka-brokers={}", proxy.brokers)]);
    let publisher = FaultyPublisher::counting(KafkaPublisher::new(&cfg.kafka));
    let mode_changes = publisher.mode_changes.clone();
    let relay = fixture.relay_with(cfg, publisher).await;
    let opening = history(0..1, 3);
    let backlog = history(1..RETURNS, 6);
    // One event to each topic before the pause, so that the relay knows the topics' limits.
    fixture.insert_all(&opening[..2]).await;
    fixture.outbox_is_empty().await;
    let unsettled = || async { relay.metrics.unsettled_rows.get() };
    until("nothing is in flight", || async { unsettled().await == 0 }).await;
    proxy.pause();
    fixture.insert(&opening[2]).await;
    until("it is in flight", || async { unsettled().await == 1 }).await;
    fixture.insert_at_once(&backlog).await;
    until("all records are in flight", || async {
        usize::try_from(unsettled().await) == Ok(backlog.len() + 1)
    })
    .await;
    assert_eq!(mode_changes.load(Ordering::Relaxed), 0, "one mode");
    proxy.resume();
    fixture.outbox_is_empty().await;
    let events = [opening, backlog].concat();
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(
        assert_history(&received, &events),
        0,
        "nothing is sent again"
    );
    relay.stop().await;
}

/// How long the stalled transactions stay open: longer than the lag of the floor, and than the time between two sweeps.
const STALL: Duration = Duration::from_secs(5);
/// A sweep starts every two seconds; the rest is for a loaded machine.
const SWEPT: Duration = Duration::from_secs(10);

/// Stalled rows commit far below the floor, and the next events of their returns commit 1 ms later, far above it. This
/// happens three times in a second, so that a sweep from 0, which finds stalled rows by itself, can hit only one of the
/// three. Half of the stalled rows are first events, the others second events. Every third row has no next event that
/// would lead to it.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_transaction_with_the_lowest_ids_that_commits_last_is_published_in_order_and_stalls_nothing()
 {
    let fixture = Arc::new(Fixture::create().await);
    let relay = fixture.relay().await;
    let follower = fixture.topics.follow(&fixture.topics.returns);
    let mut events = Vec::new();
    let mut stalled = Vec::new();
    for round in 0..3 {
        let old = orders_of_round(round).filter(|order| order % 2 == 0);
        let old: Vec<Event> = old.map(|order| Event::new(order, order, 1)).collect();
        fixture.insert_all(&old).await;
        let transaction = Stalled::begin(&fixture, orders_of_round(round)).await;
        events.extend([old, transaction.late.clone(), transaction.next.clone()].concat());
        stalled.push(transaction);
    }
    let stalled_at = Instant::now();
    let not_enough = |others: usize| others <= 2_000 || stalled_at.elapsed() < STALL;
    let others = publish_others(&fixture, 1_000, not_enough).await;
    // These events arrive while the transactions are still open.
    let beside_open = follower.latencies(&commits(&others)).await;
    let next = 1_000 + i64::try_from(others.len()).expect("fits");
    events.extend(others.into_iter().map(|(event, _)| event));

    let stop = Arc::new(AtomicBool::new(false));
    let others = tokio::spawn({
        let (fixture, stop) = (Arc::clone(&fixture), Arc::clone(&stop));
        async move { publish_others(&fixture, next, |_| !stop.load(Ordering::Relaxed)).await }
    });
    let mut committed_late = Vec::new();
    for transaction in stalled {
        committed_late.extend(transaction.commit(&fixture).await);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let others = others.await.expect("no panic");
    let beside_commits = follower.latencies(&commits(&others)).await;
    events.extend(others.into_iter().map(|(event, _)| event));
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(
        assert_history(&received, &events),
        0,
        "nothing is sent again"
    );
    let late = follower.latencies(&committed_late).await;
    let held = relay.metrics.held_rows.get();
    eprintln!(
        "stalled transactions: {late}; beside them, open: {beside_open}; as they commit: {beside_commits}; held {held} \
         times"
    );
    assert!(late.worst() < SWEPT, "{late}");
    assert!(held > 0, "some next event was read first");
    relay.stop().await;
}

fn orders_of_round(round: i64) -> std::ops::RangeInclusive<i64> {
    const ORDERS: i64 = 24;
    round * ORDERS + 1..=(round + 1) * ORDERS
}

/// An open transaction with the low ids of its rows.
struct Stalled {
    tx: sqlx::Transaction<'static, sqlx::MySql>,
    late: Vec<Event>,
    /// The next events of some of the returns.
    next: Vec<Event>,
}

impl Stalled {
    /// Writes the first event of odd orders and the second event of even orders.
    async fn begin(fixture: &Fixture, orders: std::ops::RangeInclusive<i64>) -> Self {
        let late: Vec<Event> = orders
            .map(|order| Event::new(order, order, 2 - i32::from(order % 2 == 1)))
            .collect();
        let mut tx = fixture.pool().begin().await.expect("begin");
        keep_when_silent(&mut tx).await;
        fixture.insert_all_on(&mut *tx, &late).await;
        let next = late
            .iter()
            .filter(|event| event.order_id % 3 != 0)
            .map(|event| Event::new(event.order_id, event.return_id, event.seq + 1))
            .collect();
        Self { tx, late, next }
    }

    /// Commits, and inserts the next events 1 ms later. Returns the first events with the time of their COMMIT.
    async fn commit(self, fixture: &Fixture) -> Vec<(EventId, Instant)> {
        self.tx.commit().await.expect("commit");
        let first = self.late.iter().filter(|event| event.seq == 1);
        let committed = first.map(|event| (event.event_id, Instant::now()));
        let committed = committed.collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        fixture.insert_all(&self.next).await;
        committed
    }
}

/// Commits rows with later ids while `goes_on` holds for their number. Returns each with the time of its COMMIT.
async fn publish_others(
    fixture: &Fixture,
    first: i64,
    goes_on: impl Fn(usize) -> bool,
) -> Vec<(Event, Instant)> {
    let mut others = Vec::new();
    let mut next = first;
    while goes_on(others.len()) {
        let events: Vec<Event> = (next..next + 50).map(|n| Event::new(n, n, 1)).collect();
        fixture.insert_all(&events).await;
        let now = Instant::now();
        others.extend(events.into_iter().map(|event| (event, now)));
        next += 50;
        // Slower than a relay on a slow machine: events behind a backlog would show nothing about stalled rows.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    others
}

fn commits(events: &[(Event, Instant)]) -> Vec<(EventId, Instant)> {
    let commit = |(event, at): &(Event, Instant)| (event.event_id, *at);
    events.iter().map(commit).collect()
}

/// With statistics taken while the table was empty, MySQL turns an id list without a forced index into a scan.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_500_rows_does_not_wait_for_an_uncommitted_insert_in_their_shard() {
    let fixture = Fixture::create().await;
    fixture
        .pool()
        .execute("ANALYZE TABLE outbox")
        .await
        .expect("analyze");
    let events: Vec<Event> = (0..500).map(|n| Event::new(123, n, 1)).collect();
    fixture.insert_all(&events).await;
    let mut open = fixture.pool().begin().await.expect("begin");
    fixture
        .insert_on(&mut *open, &Event::new(123, 9_999, 1))
        .await;
    let shard = Shard::of(OrderId(123));
    let rows = sqlx::query("SELECT id, event_id FROM outbox WHERE shard = ? ORDER BY id")
        .bind(shard)
        .fetch_all(fixture.pool())
        .await
        .expect("rows");
    let keys: Vec<RowKey> = rows
        .iter()
        .map(|row| RowKey {
            shard,
            id: row.get(0),
            event_id: row.get(1),
        })
        .collect();
    assert_eq!(keys.len(), 500);
    let mut conn = fixture
        .pool()
        .acquire()
        .await
        .expect("a connection")
        .detach();
    conn.execute("SET SESSION innodb_lock_wait_timeout = 1")
        .await
        .expect("set");
    let deleted = outbox::delete_published(&mut conn, &keys)
        .await
        .expect("no lock wait");
    assert_eq!(deleted, 500);
    // The same keys with other event ids match no row.
    let others: Vec<RowKey> = keys
        .iter()
        .map(|key| RowKey {
            event_id: shared::domain::ids::EventId::generate(),
            ..*key
        })
        .collect();
    let deleted = outbox::delete_published(&mut conn, &others)
        .await
        .expect("no lock wait");
    assert_eq!(deleted, 0);
    conn.close().await.expect("close");
    open.rollback().await.expect("rollback");
}
