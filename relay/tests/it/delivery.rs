//! Committed rows, and only those, reach Kafka unchanged.

use std::collections::HashSet;

use shared::domain::actor::Actor;
use shared::domain::ids::{CustomerId, OrderId};
use shared::domain::money::{Currency, Money};
use shared::domain::trace_context::TraceContext;
use shared::domain::transition::{self, Cause, NewReturn};
use sqlx::Row;
use time::OffsetDateTime;

use crate::harness::{Event, Fixture};
use relay::Drain;

#[tokio::test(flavor = "multi_thread")]
async fn p3_rows_reach_kafka_and_are_deleted() {
    let fixture = Fixture::create().await;
    let events: Vec<Event> = (0..2_500).map(|n| Event::new(n, n + 10_000, 1)).collect();
    fixture.insert_all(&events).await;
    let relay = fixture.relay().await;
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(
        received.len(),
        events.len(),
        "no duplicates without a failure"
    );
    assert_eq!(relay.metrics.published_rows.get(), 2_500);
    assert_eq!(relay.metrics.missing_rows.get(), 0);
    assert_eq!(relay.stop().await, Drain::Complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_carries_key_payload_and_headers_as_documented() {
    let fixture = Fixture::create().await;
    let event = Event::new(123, 456, 1);
    fixture.insert(&event).await;
    let relay = fixture.relay().await;
    let received = fixture.topics.read_events(1).await.remove(0);
    assert_eq!(received.topic, fixture.topics.returns);
    assert_eq!(received.key, "123");
    assert_eq!(received.payload, br#"{"return_id":456,"order_id":123}"#);
    assert_eq!(received.event_id(), event.event_id.to_string());
    assert_eq!(received.header("ce_type"), Some("return.tested.v1"));
    assert_eq!(received.epoch(), 1);
    assert_eq!(received.header("traceparent").map(str::len), Some(55));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_every_event_in_kafka_is_in_the_audit_trail() {
    let fixture = Fixture::create().await;
    let topics = fixture.topics.args();
    let relay = fixture.relay().await;
    let orders = fixture.db.seed_orders(1, 60, CustomerId(7)).await;
    for (group, orders) in orders.chunks(10).enumerate() {
        let new: Vec<NewReturn> = orders.iter().copied().map(new_return).collect();
        let mut tx = fixture.pool().begin().await.expect("begin");
        let opened = transition::open(&mut tx, OffsetDateTime::now_utc(), &new)
            .await
            .expect("open");
        opened.announce(&mut tx, &topics).await.expect("announce");
        // Every other group is rolled back with its rows written.
        if group % 2 == 0 {
            tx.commit().await.expect("commit");
        } else {
            tx.rollback().await.expect("rollback");
        }
    }
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(30).await;
    let in_kafka: HashSet<(String, i64, i64)> = received
        .iter()
        .map(|s| (s.event_id().to_owned(), s.return_id(), s.seq()))
        .collect();
    let audit = sqlx::query("SELECT event_id, return_id, seq FROM return_events")
        .fetch_all(fixture.pool())
        .await
        .expect("audit rows");
    let audit: HashSet<(String, i64, i64)> = audit
        .iter()
        .map(|row| {
            (
                row.get::<uuid::Uuid, _>(0).to_string(),
                row.get(1),
                row.get::<i32, _>(2).into(),
            )
        })
        .collect();
    assert_eq!(in_kafka, audit);
    relay.stop().await;
}

fn new_return(order_id: OrderId) -> NewReturn {
    NewReturn {
        order_id,
        customer_id: CustomerId(7),
        filed_by: None,
        reason: "too small".to_owned(),
        reason_code: None,
        review_required: false,
        refund_amount: Money::new(
            rust_decimal::Decimal::new(4990, 2),
            Currency::parse("EUR").expect("a currency"),
        ),
        cause: Cause {
            actor: Actor::customer(CustomerId(7)),
            request_id: None,
            trace: TraceContext::new_root(),
        },
    }
}
