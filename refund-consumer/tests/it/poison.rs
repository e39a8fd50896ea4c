//! Every kind of bad record among a thousand good ones: each is kept as it came, and no return waits for one.

mod corpus;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use refund_consumer::message::{Reason, Record, parse};
use shared::domain::ids::{EventId, OrderId, ReturnId};
use shared::domain::transition::Filed;
use shared::test_support::env;
use sqlx::Row;
use time::OffsetDateTime;
use uuid::{Uuid, uuid};

use crate::harness::records::{FirstEvent, Kept, Message, Sending};
use crate::harness::{Running, WAIT_DEADLINE, World, until, until_true};
use corpus::{About, GOOD, POISON};

const EVENTS: &str = include_str!("../../../docs/EVENTS.md");
const PARTITIONS: i32 = 6;
const RETURNS: usize = 1_000;
/// Returns about which Kafka has only records that cannot be used.
const ONLY_POISON: usize = 10;

/// Every bad record, each about the next return, with its name and reason.
fn poison(about: impl Fn(usize) -> About) -> Vec<(String, &'static str, Message)> {
    let cases = POISON
        .iter()
        .flat_map(|(reason, cases)| cases.iter().map(move |case| (*reason, case)));
    let make = |(at, (reason, (name, make))): (usize, (&'static str, &(&str, corpus::Make)))| {
        (format!("{reason}: {name}"), reason, make(&about(at)))
    };
    cases.enumerate().map(make).collect()
}

fn without_a_database() -> About {
    let first = |id: i64, event: Uuid, in_base64: &str| {
        let filed = Filed {
            order_id: OrderId(1_000 + id),
            return_id: ReturnId(id),
            event_id: EventId(event),
        };
        FirstEvent::imagined(filed, in_base64)
    };
    let ids = [
        uuid!("01a208a3-5daf-7768-a2d4-5d3e629082ff"),
        uuid!("01a208a3-5d6c-7318-8646-f8ee1dbe0d17"),
    ];
    About {
        first: first(456, ids[0], "AaIIo12vd2ii1F0+YpCC/w=="),
        other: first(789, ids[1], "AaIIo11scxiGRvjuHb4NFw=="),
    }
}

fn read(message: &Message) -> Result<(ReturnId, OrderId), Reason> {
    let record = Record {
        key: message.key.clone(),
        payload: message.payload.clone(),
        headers: message.headers.clone(),
        headers_readable: true,
        ..Record::default()
    };
    parse(&record).map(|new| (new.return_id, new.order_id))
}

#[test]
fn the_corpus_is_large_each_record_is_another_and_the_page_names_every_reason() {
    let about = without_a_database();
    let poison = poison(|_| about.clone());
    assert!(poison.len() >= 150, "{}", poison.len());
    let names: BTreeSet<&str> = poison.iter().map(|(name, ..)| name.as_str()).collect();
    let messages: BTreeSet<&Message> = poison.iter().map(|(.., message)| message).collect();
    assert_eq!((names.len(), messages.len()), (poison.len(), poison.len()));
    // These two need a return that cannot be claimed, and our own Kafka client: see dead_letters.rs.
    let elsewhere = ["claim_failed", "unreadable_header"];
    let tried = POISON.iter().map(|(reason, _)| *reason);
    let tried: BTreeSet<&str> = tried.chain(elsewhere).collect();
    let section = EVENTS
        .split("\n## ")
        .find(|section| section.starts_with("What our refund consumer puts aside"));
    let rows = section.expect("the section").lines();
    let codes = rows.filter_map(|row| row.strip_prefix("| `")?.split_once('`'));
    assert_eq!(codes.map(|(code, _)| code).collect::<BTreeSet<_>>(), tried);
}

#[test]
fn the_parser_finds_every_reason_that_needs_no_row() {
    let about = without_a_database();
    let needs_the_row = ["unknown_return", "other_order", "other_event"];
    for (name, reason, message) in poison(|_| about.clone()) {
        let refused = read(&message).err().map(Reason::as_str);
        let expected = (!needs_the_row.contains(&reason)).then_some(reason);
        assert_eq!(refused, expected, "{name}");
    }
    for (name, make) in GOOD {
        let filed = about.first.filed;
        let ids = Ok((filed.return_id, filed.order_id));
        assert_eq!(read(&make(&about)), ids, "{name}");
    }
}

/// The records that the test sends, and the expected results.
struct Plan {
    warm_up: FirstEvent,
    only_poison: Vec<FirstEvent>,
    sendings: Vec<Sending>,
    /// One entry for each sending: name and reason if it is bad.
    bad: Vec<Option<(String, &'static str)>>,
}

impl Plan {
    async fn make(world: &World) -> Self {
        let count = number(RETURNS + ONLY_POISON + 1);
        world.file_all(1..=count, false).await;
        let mut returns = world.first_events().await;
        let warm_up = returns.pop().expect("one more than needed");
        let only_poison = returns.split_off(RETURNS);
        // The good record of the same return comes earlier, later, or never.
        let about = |at: usize| About {
            first: if at.is_multiple_of(10) {
                only_poison[at / 10 % ONLY_POISON].clone()
            } else {
                returns[at * 37 % RETURNS].clone()
            },
            other: returns[(at * 41 + 1) % RETURNS].clone(),
        };
        let mut poison = poison(about).into_iter().enumerate();
        let every = RETURNS / poison.len();
        let mut plan = Self {
            warm_up,
            only_poison: only_poison.clone(),
            sendings: Vec::new(),
            bad: Vec::new(),
        };
        for (at, first) in returns.iter().enumerate() {
            if at.is_multiple_of(every)
                && let Some((number, (name, reason, message))) = poison.next()
            {
                plan.add(message, number, Some((name, reason)));
            }
            let about = About {
                first: first.clone(),
                other: returns[(at + 1) % RETURNS].clone(),
            };
            let (_, make) = GOOD[at % GOOD.len()];
            plan.add(make(&about), at, None);
        }
        assert_eq!(poison.next().map(|(at, _)| at), None, "all are mixed in");
        plan
    }

    fn add(&mut self, message: Message, at: usize, bad: Option<(String, &'static str)>) {
        let now = OffsetDateTime::now_utc().unix_timestamp() * 1_000;
        let sent = number(self.sendings.len());
        self.sendings.push(Sending {
            message,
            partition: i32::try_from(at).ok().map(|at| at % PARTITIONS),
            // Each has its own time, some minutes ago.
            time_ms: Some(now - 300_000 + sent),
        });
        self.bad.push(bad);
    }

    /// The expected dead letters, with their names, by partition and offset.
    fn expected(&self, topic: &str, placed: &[(i32, i64)]) -> BTreeMap<(i32, i64), (String, Kept)> {
        let each = self.sendings.iter().zip(&self.bad).zip(placed);
        let kept = each.filter_map(|((sending, bad), (partition, offset))| {
            let (name, reason) = bad.as_ref()?;
            let kept = Kept {
                topic: topic.to_owned(),
                partition: *partition,
                offset: *offset,
                time_ms: sending.time_ms?,
                message: sending.message.clone(),
                reason: (*reason).to_owned(),
            };
            Some(((*partition, *offset), (name.clone(), kept)))
        });
        kept.collect()
    }
}

/// Sends one good return again and again until both consumers have partitions; returns how often.
async fn warm_up(world: &World, first: &FirstEvent, consumers: [&Running; 2]) -> i64 {
    let everywhere = (0..PARTITIONS).map(|partition| Sending {
        message: Message::bare(first),
        partition: Some(partition),
        time_ms: None,
    });
    let everywhere: Vec<Sending> = everywhere.collect();
    let taken = |running: &Running| running.messages("claimed") + running.messages("duplicate");
    let deadline = Instant::now() + WAIT_DEADLINE;
    let mut sent = 0;
    while consumers.iter().any(|running| taken(running) == 0) {
        assert!(Instant::now() < deadline, "a consumer gets no partition");
        sent += world.send_all(&everywhere).await.len();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    number(sent)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).expect("it fits")
}

/// Compares one by one: values of a megabyte would make the message unreadable.
fn compare(expected: &BTreeMap<(i32, i64), (String, Kept)>, kept: &[Kept]) {
    let mut wrong = Vec::new();
    for one in kept {
        let Some((name, expected)) = expected.get(&(one.partition, one.offset)) else {
            let place = (one.partition, one.offset);
            wrong.push(format!("not bad: {place:?} kept as {}", one.reason));
            continue;
        };
        if one.reason != expected.reason {
            wrong.push(format!("{name}: kept as {}", one.reason));
        }
        let (came, was) = (&one.message, &expected.message);
        for (part, same) in [
            ("key", came.key == was.key),
            ("value", came.payload == was.payload),
            ("headers", came.headers == was.headers),
            ("time", one.time_ms == expected.time_ms),
            ("topic", one.topic == expected.topic),
        ] {
            if !same {
                wrong.push(format!("{name}: its {part} changed"));
            }
        }
    }
    let places: BTreeSet<_> = kept.iter().map(|one| (one.partition, one.offset)).collect();
    let missing = expected.iter().filter(|(place, _)| !places.contains(place));
    wrong.extend(missing.map(|(_, (name, _))| format!("{name}: not kept")));
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(kept.len(), expected.len(), "each once");
}

/// One attempt, one effect, the whole amount, and an audit trail of four events for each of these returns.
async fn all_paid_once(world: &World, returns: &[FirstEvent]) {
    let keys = returns
        .iter()
        .map(|first| format!("refund-{}-1", first.filed.event_id));
    let keys: BTreeSet<String> = keys.collect();
    let ledger = std::fs::read_to_string(world.ledger()).expect("the ledger");
    let effects = ledger.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["amount"], "49.90");
        line["key"].as_str().expect("a key").to_owned()
    });
    let effects: Vec<String> = effects.collect();
    assert_eq!(effects.len(), keys.len(), "one effect each");
    assert_eq!(effects.into_iter().collect::<BTreeSet<_>>(), keys);
    let attempts: Vec<String> = sqlx::query_scalar(
        "SELECT idempotency_key FROM refunds WHERE attempt = 1 AND state = 'succeeded' AND amount = 49.90",
    )
    .fetch_all(&world.db.pool)
    .await
    .expect("attempts");
    assert_eq!(attempts.into_iter().collect::<BTreeSet<_>>(), keys);
    let count = number(returns.len());
    for (query, expected) in [
        ("SELECT COUNT(*) FROM refunds", count),
        ("SELECT COUNT(*) FROM orders", count),
        (
            "SELECT COUNT(*) FROM returns WHERE status = 'refunded' AND version = 4 AND refund_amount = 49.90",
            count,
        ),
        ("SELECT COUNT(*) FROM return_events", 4 * count),
    ] {
        assert_eq!(world.count(query).await, expected, "{query}");
    }
    for first in returns.iter().step_by(50) {
        assert_eq!(world.audited(first.filed.return_id).await.len(), 4);
    }
}

/// Waits until these numbers of returns are refunded and of records kept; gives up when neither number grows any more.
async fn all_refunded_or_kept(world: &World, enough: (i64, i64)) {
    const IN_ALL: Duration = Duration::from_secs(120);
    let (began, mut counts) = (Instant::now(), (0, 0));
    while counts != enough {
        assert!(began.elapsed() < IN_ALL, "{counts:?} of {enough:?}");
        let before = counts;
        let what = format!("more than {before:?} of {enough:?} are refunded and kept");
        counts = until(&what, || async {
            let paid = "SELECT COUNT(*) FROM returns WHERE status = 'refunded'";
            let kept = "SELECT COUNT(*) FROM dead_letters";
            let counts = (world.count(paid).await, world.count(kept).await);
            (counts != before).then_some(counts)
        })
        .await;
    }
}

/// A client that is no member of the group. It reads and changes the offsets that the group has committed.
fn beside(world: &World) -> (BaseConsumer, TopicPartitionList) {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", env("KAFKA_BROKERS"))
        .set("group.id", &world.group);
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(&world.topics.topic_returns, 0, PARTITIONS - 1);
    (client.create().expect("a consumer"), partitions)
}

/// Fails unless the group has stored the offset of every record.
fn everything_is_stored(world: &World) {
    let (client, partitions) = beside(world);
    let committed = client.committed_offsets(partitions, WAIT_DEADLINE);
    for one in committed.expect("the group's offsets").elements() {
        let marks = client.fetch_watermarks(one.topic(), one.partition(), WAIT_DEADLINE);
        let (_, end) = marks.expect("the end of the partition");
        assert_eq!(one.offset(), Offset::Offset(end), "{}", one.partition());
    }
}

fn reset_to_the_beginning(world: &World) {
    let (client, mut partitions) = beside(world);
    partitions
        .set_all_offsets(Offset::Offset(0))
        .expect("an offset");
    client
        .commit(&partitions, CommitMode::Sync)
        .expect("a group without members");
}

/// A checksum over every row of every table that a consumer writes.
async fn checksums(world: &World) -> Vec<(String, Option<i64>)> {
    let rows = sqlx::query(
        "CHECKSUM TABLE orders, returns, return_events, refunds, outbox, inbox, dead_letters EXTENDED",
    )
    .fetch_all(&world.db.pool)
    .await
    .expect("checksums");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p10_every_bad_record_is_kept_and_holds_up_no_return() {
    let world = World::with_partitions(PARTITIONS).await;
    let plan = Plan::make(&world).await;
    let returns = world.first_events().await;
    // Scans leave new returns alone: the good messages must lead to every refund.
    let flags = ["--initiated-grace-secs=3600"];
    let one = world.start(world.simulated(), &flags).await;
    let two = world.start(world.simulated(), &flags).await;
    let repeats = warm_up(&world, &plan.warm_up, [&one, &two]).await;

    let placed = world.send_all(&plan.sendings).await;
    let expected = plan.expected(&world.topics.topic_returns, &placed);
    assert!((0..PARTITIONS).all(|partition| expected.keys().any(|place| place.0 == partition)));
    let enough = (number(RETURNS) + 1, number(expected.len()));
    all_refunded_or_kept(&world, enough).await;
    compare(&expected, &world.dead_letters().await);

    // Kafka has no usable record about these. The scan finds them once they are old enough.
    for first in &plan.only_poison {
        let id = first.filed.return_id;
        assert_eq!(world.status(id).await, ("initiated".to_owned(), 1));
        let older = "UPDATE returns SET updated_at = updated_at - INTERVAL 2 HOUR WHERE id = ?";
        world.execute(older, id.0).await;
    }
    for first in &plan.only_poison {
        world.wait_for(first.filed.return_id, "refunded").await;
    }
    one.stop().await;
    two.stop().await;
    all_paid_once(&world, &returns).await;
    everything_is_stored(&world);

    let before = checksums(&world).await;
    reset_to_the_beginning(&world);
    let again = world.start(world.simulated(), &flags).await;
    let all = (number(RETURNS) + repeats, number(expected.len()));
    until_true("all are read again", || {
        let taken = |result| i64::try_from(again.messages(result)).expect("it fits");
        (taken("duplicate"), taken("dead_letter")) == all
    })
    .await;
    again.stop().await;
    assert_eq!(checksums(&world).await, before);
    assert_eq!(world.effects(), returns.len());
    everything_is_stored(&world);
}
