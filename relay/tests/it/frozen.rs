//! The one known limit: a relay that was frozen for longer than its lease and wakes up (docs/adr/0007).
//!
//! The broker does not know about leases. So records that the stale relay had in flight may be appended behind records
//! that the new owner has sent since. These tests measure how many, how late, and that each of them is a repeat.

use std::collections::HashMap;
use std::time::Duration;

use relay::pump::MAX_UNSETTLED;
use time::OffsetDateTime;

use crate::harness::{BrokerProxy, Event, Fixture, Record, assert_history, history, until};
use crate::program::Program;

/// `BATCH_ROWS`. A read starts while fewer than `MAX_UNSETTLED` rows are unsettled. Its rows, and those of the read that
/// runs while they are sent, may still be added. A partition that acknowledges nothing for a second does not count, but
/// all rows together are at most twice as many.
const BATCH_ROWS: usize = 1_000;
const MAX_IN_FLIGHT: usize = 2 * MAX_UNSETTLED - 1 + 2 * BATCH_ROWS;

/// Much longer than a read of `BATCH_ROWS`, much shorter than the lease.
const READ_TIME: Duration = Duration::from_millis(300);

const UNSETTLED: &str = "outbox_relay_unsettled_rows";
const PUBLISHED: &str = "outbox_published_rows_total";
const OWNED: &str = "outbox_relay_owned_shards";

/// The network to the broker is paused before the freeze and works again after it, so the queue is as full as possible.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_relay_that_wakes_with_a_full_queue_appends_only_repeats() {
    let fixture = Fixture::create().await;
    let events = opened_by_two(5_000);
    let (stale, proxy, in_flight) = with_a_full_queue(&fixture, &events, "").await;
    let late = freeze_and_wake(&fixture, stale, Some(&proxy), events, Successor::SentAll).await;
    eprintln!("woke with {in_flight} in flight: {late}");
    assert!(late.count <= in_flight);
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_relay_that_wakes_in_the_middle_of_a_drain_appends_only_repeats() {
    let fixture = Fixture::create().await;
    let events = history(0..10_000, 6);
    fixture.insert_all(&events).await;
    let stale = Program::start(&fixture, &[]).await;
    has_published(&stale, 10_000).await;
    let late = freeze_and_wake(&fixture, stale, None, events, Successor::SentAll).await;
    eprintln!("woke in a drain: {late}");
}

/// Here a late record may be the only one of its event: the stale relay's DELETE needs no lease, so the successor may
/// never read that row. The record is still in order, so consumers must not drop a record for its lower epoch.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_relay_that_wakes_while_its_successor_drains_loses_and_reorders_nothing() {
    let fixture = Fixture::create().await;
    let events = opened_by_two(5_000);
    let (stale, proxy, in_flight) = with_a_full_queue(&fixture, &events, "").await;
    let wake_when = Successor::Sent(2_000);
    let late = freeze_and_wake(&fixture, stale, Some(&proxy), events, wake_when).await;
    eprintln!("woke with {in_flight} in flight while its successor drained: {late}");
}

/// The worst case: after the wake-up the Kafka client's threads run before the thread that would stop them.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_relay_that_wakes_and_cannot_purge_in_time_appends_all_records_in_flight() {
    let fixture = Fixture::create().await;
    let events = opened_by_two(5_000);
    let slow = "relay.before_purge=sleep(2000)";
    let (stale, proxy, in_flight) = with_a_full_queue(&fixture, &events, slow).await;
    let late = freeze_and_wake(&fixture, stale, Some(&proxy), events, Successor::SentAll).await;
    eprintln!("woke with {in_flight} in flight, purge 2 s late: {late}");
    assert_eq!(
        late.count, in_flight,
        "all records in flight, and nothing else"
    );
}

/// Three events of each return. The first two events belong to return 0.
fn opened_by_two(returns: i64) -> Vec<Event> {
    let mut events = history(0..1, 3);
    let third = events.pop().expect("three");
    events.extend(history(1..returns, 3));
    events.push(third);
    events
}

/// A relay behind a paused proxy that has read as many rows as it may, and their number.
async fn with_a_full_queue(
    fixture: &Fixture,
    events: &[Event],
    armed: &str,
) -> (Program, BrokerProxy, usize) {
    let proxy = BrokerProxy::start().await;
    let flags = [
        format!("--batch-rows={BATCH_ROWS}"),
        format!("--kafka-brokers={}", proxy.brokers),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let relay = Program::start_armed(fixture, &flags, armed).await;
    // One event to each topic before the pause, so that the relay knows the broker and the topics' limits.
    let (first, rest) = events.split_at(2);
    fixture.insert_all(first).await;
    fixture.outbox_is_empty().await;
    proxy.pause();
    fixture.insert_all(rest).await;
    until(
        "its queue is full, and every read row is enqueued",
        || async {
            let before = relay.metric(UNSETTLED).await;
            tokio::time::sleep(READ_TIME).await;
            before >= MAX_UNSETTLED as u64 && relay.metric(UNSETTLED).await == before
        },
    )
    .await;
    assert_eq!(relay.metric(PUBLISHED).await, 2);
    let in_flight = relay.metric(UNSETTLED).await;
    (relay, proxy, usize::try_from(in_flight).expect("rows"))
}

/// The successor's progress when the stale relay wakes up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Successor {
    SentAll,
    Sent(u64),
}

/// Freezes a relay, lets another one take over and send everything, with one newer event of each return, and wakes the
/// first one up.
async fn freeze_and_wake(
    fixture: &Fixture,
    stale: Program,
    proxy: Option<&BrokerProxy>,
    mut events: Vec<Event>,
    wake_when: Successor,
) -> Late {
    stale.freeze();
    // The stale producer would use times from before the freeze.
    let stamped = ("message.timestamp.type", "LogAppendTime");
    fixture.topics.set(stamped.0, stamped.1).await;
    let last = events.last().expect("some").seq;
    let first = events.iter().filter(|event| event.seq == 1);
    let newer: Vec<Event> = first
        .map(|event| Event::new(event.order_id, event.return_id, last + 1))
        .collect();
    fixture.insert_all(&newer).await;
    events.extend(newer);
    let successor = Program::start(fixture, &[]).await;
    match wake_when {
        Successor::SentAll => fixture.outbox_is_empty().await,
        Successor::Sent(rows) => has_published(&successor, rows).await,
    }

    let woken = OffsetDateTime::now_utc();
    if let Some(proxy) = proxy {
        proxy.resume();
    }
    stale.thaw();
    until("the stale relay owns shards again", || async {
        stale.metric(OWNED).await == 8
    })
    .await;
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_history(&received, &events);
    successor.kill_9().await;
    stale.kill_9().await;
    let late = Late::of(&received, woken);
    assert!(late.count <= MAX_IN_FLIGHT, "too many: {late}");
    if wake_when == Successor::SentAll {
        assert_eq!(late.only_by_stale, 0, "P3: each is a repeat: {late}");
    }
    late
}

async fn has_published(relay: &Program, rows: u64) {
    until("it is draining the backlog", || async {
        relay.metric(PUBLISHED).await >= rows
    })
    .await;
}

/// The records that the stale relay appended after the successor had sent records of the same return.
#[derive(Default)]
struct Late {
    count: usize,
    /// Records behind a newer event of the same return and topic.
    behind_newer: usize,
    /// Records that the successor never sent: they were acknowledged and deleted before it read their rows.
    only_by_stale: usize,
    /// The shortest and the longest time from the successor's append to the stale relay's.
    lag_ms: (i64, i64),
    /// The time from SIGCONT to the last append.
    last_ms: i64,
}

impl Late {
    fn of(received: &[Record], woken: OffsetDateTime) -> Self {
        let woken_ms = i64::try_from(woken.unix_timestamp_nanos() / 1_000_000).expect("a date");
        let by_successor: HashMap<&str, i64> = received
            .iter()
            .filter(|record| record.epoch() == 2)
            .map(|record| (record.event_id(), record.time_ms))
            .collect();
        assert!(!by_successor.is_empty(), "the epoch rose with the owner");
        // For each return and topic: the highest epoch and seq so far, and the last late seq.
        let mut so_far: HashMap<(&str, i64), (i64, i64, i64)> = HashMap::new();
        let mut late = Self {
            lag_ms: (i64::MAX, 0),
            ..Self::default()
        };
        for record in received {
            let at = so_far
                .entry((&record.topic, record.return_id()))
                .or_default();
            if record.epoch() >= at.0 {
                *at = (record.epoch(), at.1.max(record.seq()), at.2);
                continue;
            }
            assert_eq!(
                (record.epoch(), at.0),
                (1, 2),
                "a late record has the lower epoch: {record:?}"
            );
            assert!(record.seq() > at.2, "late records are in order: {record:?}");
            at.2 = record.seq();
            late.count += 1;
            late.behind_newer += usize::from(record.seq() < at.1);
            match by_successor.get(record.event_id()) {
                Some(first) => {
                    let lag = record.time_ms - first;
                    late.lag_ms = (late.lag_ms.0.min(lag), late.lag_ms.1.max(lag));
                }
                None => late.only_by_stale += 1,
            }
            late.last_ms = late.last_ms.max(record.time_ms - woken_ms);
        }
        late
    }
}

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} late (bound {MAX_IN_FLIGHT}), {} of them behind a newer event, {} not sent by the successor; \
             {} to {} ms after the successor, the last {} ms after SIGCONT",
            self.count,
            self.behind_newer,
            self.only_by_stale,
            self.lag_ms.0.min(self.lag_ms.1),
            self.lag_ms.1,
            self.last_ms
        )
    }
}
