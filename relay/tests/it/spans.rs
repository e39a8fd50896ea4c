//! What the spans say about rows that are not sent at the first try.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use relay::publisher::kafka::KafkaPublisher;
use shared::test_support::spans::{EndedSpan, record};

use crate::harness::{Event, FaultyPublisher, Fixture, history, until};

/// The spans of one event: its times in the outbox, and the attempts to send it.
#[derive(Default)]
struct OfEvent {
    waits: Vec<EndedSpan>,
    sends: Vec<EndedSpan>,
}

/// Waits until the last attempt of each event has arrived, which succeeds.
async fn spans_of(events: &[Event]) -> Vec<OfEvent> {
    until("each row has been sent", || async {
        let mut by_event: HashMap<String, OfEvent> = HashMap::new();
        for span in record().spans() {
            let Some(event) = span.attributes.get("messaging.message.id") else {
                continue;
            };
            let of = by_event.entry(event.clone()).or_default();
            match span.name.as_str() {
                "outbox.wait" => of.waits.push(span),
                _ => of.sends.push(span),
            }
        }
        let of = |event: &Event| by_event.remove(&event.event_id.to_string());
        let all: Vec<OfEvent> = events.iter().filter_map(of).collect();
        let is_sent = |one: &OfEvent| one.sends.iter().any(|send| !send.failed);
        (all.len() == events.len() && all.iter().all(is_sent)).then_some(all)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_waits_once_although_the_producer_had_no_room() {
    record();
    let fixture = Fixture::create().await;
    let events = history(0..100, 4);
    fixture.insert_all(&events).await;
    let cfg = fixture.config(&[]);
    let publisher = FaultyPublisher::counting(KafkaPublisher::new(&cfg.kafka).with_queue(50));
    let overflows = publisher.overflows.clone();
    let relay = fixture.relay_with(cfg, publisher).await;
    fixture.outbox_is_empty().await;
    assert!(overflows.load(Ordering::Relaxed) > 0, "the queue was full");
    for of in spans_of(&events).await {
        let [wait] = of.waits.as_slice() else {
            panic!("it waited {} times", of.waits.len());
        };
        let [send] = of.sends.as_slice() else {
            panic!("nothing was sent by {} of them", of.sends.len() - 1);
        };
        assert_eq!(send.parent.as_ref(), Some(&wait.span_id));
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_relay_sends_again_has_waited_once() {
    record();
    let fixture = Fixture::create().await;
    let events = history(0..20, 3);
    fixture.insert_all(&events).await;
    let cfg = fixture.config(&[]);
    let publisher = FaultyPublisher::breaking_at_each(KafkaPublisher::new(&cfg.kafka), 25);
    let relay = fixture.relay_with(cfg, publisher).await;
    fixture.outbox_is_empty().await;
    let mut repeated = 0;
    for of in spans_of(&events).await {
        assert_eq!(
            of.waits.len(),
            1,
            "one wait for {} attempts",
            of.sends.len()
        );
        let wait = &of.waits[0];
        for send in &of.sends {
            assert_eq!(send.parent.as_ref(), Some(&wait.span_id));
        }
        // An attempt whose producer was destroyed does not look as if it had succeeded.
        let done = of.sends.iter().filter(|send| !send.failed);
        assert_eq!(done.count(), 1, "{:?}", of.sends);
        repeated += of.sends.len() - 1;
    }
    assert!(repeated > 0, "its producer broke");
    relay.stop().await;
}
