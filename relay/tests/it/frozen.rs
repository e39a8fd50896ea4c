//! The one known limit: a relay that was frozen for longer than its lease and wakes (docs/adr/0007).
//!
//! The broker does not know about leases, so what the sleeper had under way may still be appended, behind what the new
//! owner has sent meanwhile. These tests measure it: how many records, how late, and that each is a repeat.

use std::collections::HashMap;
use std::time::Duration;

use relay::pump::MAX_UNSETTLED;
use time::OffsetDateTime;

use crate::harness::{Door, Event, Seen, Stage, assert_history, history, until};
use crate::program::Program;

/// `BATCH_ROWS`. When a read is asked for, fewer than `MAX_UNSETTLED` rows are unsettled; its rows and those of the
/// read that then runs beside it may still follow.
const BATCH_ROWS: usize = 1_000;
const MOST_UNDER_WAY: usize = MAX_UNSETTLED - 1 + 2 * BATCH_ROWS;

/// Far longer than a read of `BATCH_ROWS` takes, far shorter than the lease.
const READ_UNDER_WAY: Duration = Duration::from_millis(300);

const UNSETTLED: &str = "outbox_relay_unsettled_rows";
const PUBLISHED: &str = "outbox_published_rows_total";
const OWNED: &str = "outbox_relay_owned_shards";

/// The network to the broker stands still before the freeze and works again after it: the queue is as full as it gets.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_relay_that_wakes_with_a_full_queue_appends_only_repeats() {
    let stage = Stage::set().await;
    let events = opened_by_two(5_000);
    let (sleeper, door, under_way) = with_a_full_queue(&stage, &events, "").await;
    let late = sleep_and_wake(&stage, sleeper, Some(&door), events, Heir::HasSentAll).await;
    eprintln!("woke with {under_way} under way: {late}");
    assert!(late.count <= under_way);
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_relay_that_wakes_in_the_middle_of_a_drain_appends_only_repeats() {
    let stage = Stage::set().await;
    let events = history(0..10_000, 6);
    stage.insert_all(&events).await;
    let sleeper = Program::start(&stage, &[]).await;
    has_published(&sleeper, 10_000).await;
    let late = sleep_and_wake(&stage, sleeper, None, events, Heir::HasSentAll).await;
    eprintln!("woke in a drain: {late}");
}

/// Here a late record may be the only one of its event: the sleeper's DELETE names its row and needs no lease, so the
/// heir may never read it. It is in order all the same; so a lower epoch is no reason to drop a record.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_relay_that_wakes_while_its_heir_drains_loses_and_reorders_nothing() {
    let stage = Stage::set().await;
    let events = opened_by_two(5_000);
    let (sleeper, door, under_way) = with_a_full_queue(&stage, &events, "").await;
    let wake_when = Heir::HasSent(2_000);
    let late = sleep_and_wake(&stage, sleeper, Some(&door), events, wake_when).await;
    eprintln!("woke with {under_way} under way beside its heir: {late}");
}

/// The worst case: the threads of the Kafka client get to run and the one that would stop them does not.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_relay_that_wakes_and_cannot_purge_in_time_appends_all_it_had_under_way() {
    let stage = Stage::set().await;
    let events = opened_by_two(5_000);
    let slow = "relay.before_purge=sleep(2000)";
    let (sleeper, door, under_way) = with_a_full_queue(&stage, &events, slow).await;
    let late = sleep_and_wake(&stage, sleeper, Some(&door), events, Heir::HasSentAll).await;
    eprintln!("woke with {under_way} under way, purge 2 s late: {late}");
    assert_eq!(late.count, under_way, "all, and nothing else");
}

/// Three events of each return; the first two are of return 0.
fn opened_by_two(returns: i64) -> Vec<Event> {
    let mut events = history(0..1, 3);
    let third = events.pop().expect("three");
    events.extend(history(1..returns, 3));
    events.push(third);
    events
}

/// A relay that has read as much as it may, behind a closed door; how many rows that is.
async fn with_a_full_queue(stage: &Stage, events: &[Event], armed: &str) -> (Program, Door, usize) {
    let door = Door::open_before_the_broker().await;
    let flags = [
        format!("--batch-rows={BATCH_ROWS}"),
        format!("--kafka-brokers={}", door.brokers),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let relay = Program::start_armed(stage, &flags, armed).await;
    // One event to each topic through the open door, so that the relay knows its way and the topics' limits.
    let (first, rest) = events.split_at(2);
    stage.insert_all(first).await;
    stage.outbox_is_empty().await;
    door.close();
    stage.insert_all(rest).await;
    until(
        "its queue is full, and no read is still to be enqueued",
        || async {
            let before = relay.metric(UNSETTLED).await;
            tokio::time::sleep(READ_UNDER_WAY).await;
            before >= MAX_UNSETTLED as u64 && relay.metric(UNSETTLED).await == before
        },
    )
    .await;
    assert_eq!(relay.metric(PUBLISHED).await, 2);
    let under_way = relay.metric(UNSETTLED).await;
    (relay, door, usize::try_from(under_way).expect("rows"))
}

/// How far the heir is when the sleeper wakes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heir {
    HasSentAll,
    HasSent(u64),
}

/// Freezes it, has another relay take over and send everything, one newer event of each return too, and wakes it.
async fn sleep_and_wake(
    stage: &Stage,
    sleeper: Program,
    door: Option<&Door>,
    mut events: Vec<Event>,
    wake_when: Heir,
) -> Late {
    sleeper.freeze();
    // The producer's own times would be from before the freeze.
    let stamped = ("message.timestamp.type", "LogAppendTime");
    stage.topics.set(stamped.0, stamped.1).await;
    let last = events.last().expect("some").seq;
    let first = events.iter().filter(|event| event.seq == 1);
    let newer: Vec<Event> = first
        .map(|event| Event::new(event.order_id, event.return_id, last + 1))
        .collect();
    stage.insert_all(&newer).await;
    events.extend(newer);
    let heir = Program::start(stage, &[]).await;
    match wake_when {
        Heir::HasSentAll => stage.outbox_is_empty().await,
        Heir::HasSent(rows) => has_published(&heir, rows).await,
    }

    let woken = OffsetDateTime::now_utc();
    if let Some(door) = door {
        door.open();
    }
    sleeper.thaw();
    until("the sleeper has begun anew", || async {
        sleeper.metric(OWNED).await == 8
    })
    .await;
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(events.len()).await;
    assert_history(&seen, &events);
    heir.kill_9().await;
    sleeper.kill_9().await;
    let late = Late::of(&seen, woken);
    assert!(late.count <= MOST_UNDER_WAY, "too many: {late}");
    if wake_when == Heir::HasSentAll {
        assert_eq!(late.only_by_sleeper, 0, "P3: each is a repeat: {late}");
    }
    late
}

async fn has_published(relay: &Program, rows: u64) {
    until("it is in the middle of a drain", || async {
        relay.metric(PUBLISHED).await >= rows
    })
    .await;
}

/// What the sleeper appended after the heir had sent of the same return.
#[derive(Default)]
struct Late {
    count: usize,
    /// Behind a newer event of its return in the same topic.
    behind_newer: usize,
    /// The heir never sent it: it was acknowledged and deleted before the heir read it.
    only_by_sleeper: usize,
    /// From the append by the heir to that by the sleeper.
    lag_ms: (i64, i64),
    /// From SIGCONT to the last append.
    last_ms: i64,
}

impl Late {
    fn of(seen: &[Seen], woken: OffsetDateTime) -> Self {
        let woken_ms = i64::try_from(woken.unix_timestamp_nanos() / 1_000_000).expect("a date");
        let by_heir: HashMap<&str, i64> = seen
            .iter()
            .filter(|record| epoch(record) == 2)
            .map(|record| (record.event_id.as_str(), record.time_ms))
            .collect();
        assert!(!by_heir.is_empty(), "the epoch rose with the owner");
        // Of each return in a topic: the highest epoch and seq so far, and the last late seq.
        let mut so_far: HashMap<(&str, i64), (i64, i32, i32)> = HashMap::new();
        let mut late = Self {
            lag_ms: (i64::MAX, 0),
            ..Self::default()
        };
        for record in seen {
            let at = so_far.entry((&record.topic, record.return_id)).or_default();
            if epoch(record) >= at.0 {
                *at = (epoch(record), at.1.max(record.seq), at.2);
                continue;
            }
            assert_eq!((epoch(record), at.0), (1, 2), "the epoch tells: {record:?}");
            assert!(record.seq > at.2, "in order among themselves: {record:?}");
            at.2 = record.seq;
            late.count += 1;
            late.behind_newer += usize::from(record.seq < at.1);
            match by_heir.get(record.event_id.as_str()) {
                Some(first) => {
                    let lag = record.time_ms - first;
                    late.lag_ms = (late.lag_ms.0.min(lag), late.lag_ms.1.max(lag));
                }
                None => late.only_by_sleeper += 1,
            }
            late.last_ms = late.last_ms.max(record.time_ms - woken_ms);
        }
        late
    }
}

fn epoch(record: &Seen) -> i64 {
    let epoch = record.headers["x-outbox-epoch"].parse();
    epoch.expect("a number")
}

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} late (bound {MOST_UNDER_WAY}), {} of them behind a newer event, {} not sent by the heir; \
             {} to {} ms after the heir, the last {} ms after SIGCONT",
            self.count,
            self.behind_newer,
            self.only_by_sleeper,
            self.lag_ms.0.min(self.lag_ms.1),
            self.lag_ms.1,
            self.last_ms
        )
    }
}
