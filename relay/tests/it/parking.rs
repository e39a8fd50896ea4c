//! A record that cannot be sent is parked with the later events of its order; everything else is sent.

use relay::pending::RowKey;
use relay::publisher::kafka::KafkaPublisher;
use relay::store::lease::FencingToken;
use relay::store::parking::{self, ParkOutcome, RowToPark};
use shared::domain::ids::{OrderId, Shard};
use sqlx::{Executor, Row};
use uuid::Uuid;

use crate::harness::{Event, FaultyPublisher, Fixture, assert_history, history};

/// 3 MB that exceed every limit even when they are compressed.
fn three_mb() -> Vec<u8> {
    let random = (0..3_000_000 / 16).map(|_| Uuid::now_v7().into_bytes());
    random.flatten().collect()
}

/// 60 orders with four events each, read in one batch. The second event of order 20 has 3 MB; the later events of that
/// order go to the same partition.
fn with_3_mb() -> Vec<Event> {
    let mut events = history(0..60, 4);
    events[60 + 20].payload = three_mb();
    events
}

/// `(seq, first_error, attempts)` of each parked row, by id.
async fn parked(fixture: &Fixture) -> Vec<(i32, String, i32)> {
    let rows = sqlx::query("SELECT seq, first_error, attempts FROM outbox_parked ORDER BY id")
        .fetch_all(fixture.pool())
        .await
        .expect("parked");
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

/// Order 20 is parked from its second event on, in order and with a reason; all other events are in the topics.
async fn assert_only_order_20_is_parked(fixture: &Fixture, events: &[Event]) -> usize {
    let flowing: Vec<Event> = events
        .iter()
        .filter(|event| event.order_id != 20 || event.seq == 1)
        .cloned()
        .collect();
    let parked = parked(fixture).await;
    let seqs: Vec<i32> = parked.iter().map(|row| row.0).collect();
    assert_eq!(seqs, [2, 3, 4], "{parked:?}");
    let received = fixture.topics.read_events(flowing.len()).await;
    let again = assert_history(&received, &flowing);
    assert_eq!(parked[0].2, 1, "{parked:?}");
    let reasons = ["max.message.bytes", "MessageSizeTooLarge"];
    assert!(
        reasons.iter().any(|reason| parked[0].1.contains(reason)),
        "{parked:?}"
    );
    let followed = |row: &(i32, String, i32)| row.2 == 0 && row.1.contains("follows");
    assert!(
        parked[1..].iter().all(followed),
        "later events were never sent: {parked:?}"
    );
    again
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_3_mb_record_is_parked_with_its_followers_and_other_orders_flow() {
    let fixture = Fixture::create().await;
    let events = with_3_mb();
    fixture.insert_all(&events).await;
    let relay = fixture.relay().await;
    fixture.outbox_is_empty().await;
    let again = assert_only_order_20_is_parked(&fixture, &events).await;
    assert_eq!(again, 0, "it was never sent to Kafka");

    // The first event of another return of the same order is parked later, too.
    fixture.insert(&Event::new(20, 777, 1)).await;
    fixture.outbox_is_empty().await;
    assert_eq!(fixture.count("outbox_parked").await, 4);
    relay.stop().await;
}

/// The relay knows a limit of 4 MB for the topic, so it sends the record, and Kafka refuses it.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_3_mb_record_that_kafka_refuses_is_parked_with_its_followers_and_other_orders_flow()
{
    let fixture = Fixture::create().await;
    fixture.topics.set_limit(4_000_000).await;
    let relay = fixture.relay().await;
    let mut events: Vec<Event> = (1..=2).map(|seq| Event::new(1_000, 1_000, seq)).collect();
    fixture.insert_all(&events).await;
    fixture.outbox_is_empty().await;
    fixture.topics.set_limit(200_000).await;
    let written = with_3_mb();
    fixture.insert_all(&written).await;
    events.extend(written);
    fixture.outbox_is_empty().await;
    let again = assert_only_order_20_is_parked(&fixture, &events).await;
    let restarts = relay.metrics.restarts.with_label_values(&["undelivered"]);
    eprintln!(
        "refused by Kafka: {again} repeats, {} new producers",
        restarts.get()
    );
    assert!(restarts.get() > 0, "the record was sent to Kafka");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_refused_batch_is_sent_one_by_one_and_only_the_bad_record_is_parked() {
    let fixture = Fixture::create().await;
    let mut events: Vec<Event> = (0..40).map(|n| Event::new(n, n, 1)).collect();
    events[7].payload = b"poison".to_vec();
    fixture.insert_all(&events).await;
    let cfg = fixture.config(&[]);
    let faulty = FaultyPublisher::refusing(KafkaPublisher::new(&cfg.kafka), b"poison");
    let relay = fixture.relay_with(cfg, faulty).await;
    fixture.outbox_is_empty().await;
    events.remove(7);
    let received = fixture.topics.read_events(events.len()).await;
    // Records that were acknowledged after the producer failed are sent again.
    assert_history(&received, &events);
    let bad_records: Vec<i64> = sqlx::query_scalar("SELECT aggregate_id FROM outbox_parked")
        .fetch_all(fixture.pool())
        .await
        .expect("parked");
    assert_eq!(bad_records, [7]);
    relay.stop().await;
}

/// The relay notes a record that is too large. The producer fails before it is parked, and everything is read again.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_record_about_to_be_parked_when_the_producer_fails_is_parked_for_its_own_reason() {
    let fixture = Fixture::create().await;
    let mut events = history(0..2, 1);
    events[0].payload = vec![b'x'; 250_000];
    fixture.insert_at_once(&events).await;
    let cfg = fixture.config(&[]);
    let publisher = FaultyPublisher::failing_first(KafkaPublisher::new(&cfg.kafka));
    let relay = fixture.relay_with(cfg, publisher).await;
    fixture.outbox_is_empty().await;
    let parked = parked(&fixture).await;
    let [(1, reason, 1)] = parked.as_slice() else {
        panic!("one row with one attempt: {parked:?}");
    };
    assert!(reason.contains("max.message.bytes"), "{reason}");
    relay.stop().await;
}

#[tokio::test]
async fn p4_nothing_is_parked_with_an_outdated_fencing_token() {
    let fixture = Fixture::create().await;
    let event = Event::new(5, 5, 1);
    let id = fixture.insert(&event).await;
    let shard = Shard::of(OrderId(5));
    let lease = "UPDATE outbox_lease SET owner = 'me', epoch = 4, redrive_gen = 2, \
                 lease_until = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR";
    fixture.pool().execute(lease).await.expect("a lease");
    let now = FencingToken {
        shard,
        owner: "me".to_owned(),
        epoch: 4,
        redrive_gen: 2,
    };
    let rows = [RowToPark {
        key: RowKey {
            shard,
            id,
            event_id: event.event_id,
        },
        reason: "test".to_owned(),
        attempts: 1,
    }];
    let stale = [
        FencingToken {
            redrive_gen: 1,
            ..now.clone()
        },
        FencingToken {
            epoch: 3,
            ..now.clone()
        },
        FencingToken {
            owner: "another relay".to_owned(),
            ..now.clone()
        },
    ];
    for token in stale {
        let mut tx = fixture.pool().begin().await.expect("begin");
        let outcome = parking::park(&mut tx, &token, &rows).await.expect("park");
        tx.commit().await.expect("commit");
        assert_eq!(outcome, ParkOutcome::Stale, "{token:?}");
        assert_eq!(fixture.count("outbox").await, 1);
    }
    let mut tx = fixture.pool().begin().await.expect("begin");
    let outcome = parking::park(&mut tx, &now, &rows).await.expect("park");
    tx.commit().await.expect("commit");
    assert_eq!(outcome, ParkOutcome::Parked);
    assert_eq!(fixture.count("outbox").await, 0);
}
