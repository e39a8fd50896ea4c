//! A record that cannot be sent is parked with its followers; everything else goes on.

use relay::pending::RowKey;
use relay::publisher::Kafka;
use relay::store::{self, ParkOutcome, Parking, Tenure};
use shared::domain::ids::{OrderId, Shard};
use sqlx::{Connection, Executor, Row};
use uuid::Uuid;

use crate::harness::{Event, Faulty, Stage, assert_history, history};

/// 3 MB that stay above any limit when they are compressed, as Kafka gets them.
fn three_mb() -> Vec<u8> {
    let random = (0..3_000_000 / 16).map(|_| Uuid::now_v7().into_bytes());
    random.flatten().collect()
}

/// 60 orders with four events each, read in one batch; the second event of order 20 has 3 MB, and its followers go to
/// the same partition.
fn with_3_mb() -> Vec<Event> {
    let mut events = history(0..60, 4);
    events[60 + 20].payload = three_mb();
    events
}

/// `(seq, first_error, attempts)` of each parked row, in the order of their ids.
async fn parked(stage: &Stage) -> Vec<(i32, String, i32)> {
    let rows = sqlx::query("SELECT seq, first_error, attempts FROM outbox_parked ORDER BY id")
        .fetch_all(stage.pool())
        .await
        .expect("parked");
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

/// Order 20 is parked from its second event on, in order, for a reason; everything else is in the topics.
async fn assert_only_order_20_is_parked(stage: &Stage, events: &[Event]) -> usize {
    let flowing: Vec<Event> = events
        .iter()
        .filter(|event| event.order_id != 20 || event.seq == 1)
        .cloned()
        .collect();
    let seen = stage.topics.read_events(flowing.len()).await;
    let again = assert_history(&seen, &flowing);
    let parked = parked(stage).await;
    let seqs: Vec<i32> = parked.iter().map(|row| row.0).collect();
    assert_eq!(seqs, [2, 3, 4]);
    assert_eq!(parked[0].2, 1, "{parked:?}");
    let reasons = ["max.message.bytes", "MessageSizeTooLarge"];
    assert!(
        reasons.iter().any(|reason| parked[0].1.contains(reason)),
        "{parked:?}"
    );
    let followed = |row: &(i32, String, i32)| row.2 == 0 && row.1.contains("follows");
    assert!(
        parked[1..].iter().all(followed),
        "followers were never tried: {parked:?}"
    );
    again
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_3_mb_record_is_parked_with_its_followers_and_other_orders_flow() {
    let stage = Stage::set().await;
    let events = with_3_mb();
    stage.insert_all(&events).await;
    let relay = stage.relay().await;
    stage.outbox_is_empty().await;
    let again = assert_only_order_20_is_parked(&stage, &events).await;
    assert_eq!(again, 0, "it was never given to Kafka");

    // Also later, also another return of the order, also its first event.
    stage.insert(&Event::new(20, 777, 1)).await;
    stage.outbox_is_empty().await;
    assert_eq!(stage.count("outbox_parked").await, 4);
    relay.stop().await;
}

/// The relay has read that the topic takes 4 MB, so Kafka gets the record, and refuses it.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_3_mb_record_that_kafka_refuses_is_parked_with_its_followers_and_other_orders_flow()
{
    let stage = Stage::set().await;
    stage.topics.set_limit(4_000_000).await;
    let relay = stage.relay().await;
    let mut events: Vec<Event> = (1..=2).map(|seq| Event::new(1_000, 1_000, seq)).collect();
    stage.insert_all(&events).await;
    stage.outbox_is_empty().await;
    stage.topics.set_limit(200_000).await;
    let written = with_3_mb();
    stage.insert_all(&written).await;
    events.extend(written);
    stage.outbox_is_empty().await;
    let again = assert_only_order_20_is_parked(&stage, &events).await;
    let restarts = relay.metrics.restarts.with_label_values(&["undelivered"]);
    eprintln!(
        "refused by Kafka: {again} came again, {} new producers",
        restarts.get()
    );
    assert!(restarts.get() > 0, "Kafka got the record");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_refused_batch_is_sent_one_by_one_and_only_the_culprit_is_parked() {
    let stage = Stage::set().await;
    let mut events: Vec<Event> = (0..40).map(|n| Event::new(n, n, 1)).collect();
    events[7].payload = b"poison".to_vec();
    stage.insert_all(&events).await;
    let cfg = stage.config(&[]);
    let faulty = Faulty::refusing(Kafka::new(&cfg.kafka), b"poison");
    let relay = stage.relay_with(cfg, faulty).await;
    stage.outbox_is_empty().await;
    events.remove(7);
    let seen = stage.topics.read_events(events.len()).await;
    // What was acknowledged too late to be heard by the producer that failed comes again.
    assert_history(&seen, &events);
    let culprits: Vec<i64> = sqlx::query_scalar("SELECT aggregate_id FROM outbox_parked")
        .fetch_all(stage.pool())
        .await
        .expect("parked");
    assert_eq!(culprits, [7]);
    relay.stop().await;
}

/// What is too large is noted; before it is parked the producer fails, and everything is read again.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_record_about_to_be_parked_when_the_producer_fails_is_parked_for_its_own_reason() {
    let stage = Stage::set().await;
    let mut events = history(0..2, 1);
    events[0].payload = vec![b'x'; 250_000];
    stage.insert_at_once(&events).await;
    let cfg = stage.config(&[]);
    let publisher = Faulty::failing_first(Kafka::new(&cfg.kafka));
    let relay = stage.relay_with(cfg, publisher).await;
    stage.outbox_is_empty().await;
    let parked = parked(&stage).await;
    let [(1, reason, 1)] = parked.as_slice() else {
        panic!("one that was tried: {parked:?}");
    };
    assert!(reason.contains("max.message.bytes"), "{reason}");
    relay.stop().await;
}

#[tokio::test]
async fn p4_nothing_is_parked_under_terms_that_have_changed_since() {
    let stage = Stage::set().await;
    let event = Event::new(5, 5, 1);
    let id = stage.insert(&event).await;
    let shard = Shard::of(OrderId(5));
    let lease = "UPDATE outbox_lease SET owner = 'me', epoch = 4, redrive_gen = 2, \
                 lease_until = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR";
    stage.pool().execute(lease).await.expect("a lease");
    let now = Tenure {
        shard,
        owner: "me".to_owned(),
        epoch: 4,
        redrive_gen: 2,
    };
    let rows = [Parking {
        key: RowKey {
            shard,
            id,
            event_id: event.event_id,
        },
        reason: "test".to_owned(),
        attempts: 1,
    }];
    let mut conn = stage.pool().acquire().await.expect("a connection").detach();
    let stale = [
        Tenure {
            redrive_gen: 1,
            ..now.clone()
        },
        Tenure {
            epoch: 3,
            ..now.clone()
        },
        Tenure {
            owner: "another".to_owned(),
            ..now.clone()
        },
    ];
    for tenure in stale {
        let outcome = store::park(&mut conn, &tenure, &rows).await.expect("park");
        assert_eq!(outcome, ParkOutcome::Stale, "{tenure:?}");
        assert_eq!(stage.count("outbox").await, 1);
    }
    let outcome = store::park(&mut conn, &now, &rows).await.expect("park");
    assert_eq!(outcome, ParkOutcome::Parked);
    assert_eq!(stage.count("outbox").await, 0);
    conn.close().await.expect("close");
}
