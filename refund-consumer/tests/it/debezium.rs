//! Records as Debezium's outbox event router writes them, with the configuration of docs/EVENTS.md.

use shared::domain::ids::EventId;
use shared::domain::transition::Filed;

use crate::harness::records::{Message, Sending};
use crate::harness::{World, body, until_true};

const EVENTS: &str = include_str!("../../../docs/EVENTS.md");
const HEADERS: [&str; 7] = [
    "id",
    "ce_subject",
    "seq",
    "event_type",
    "created_at",
    "traceparent",
    "tracestate",
];

async fn form(world: &World, filed: &Filed) -> Message {
    let form = Message::debezium(&world.first_event(filed).await);
    assert!(form.headers.iter().map(|(name, _)| name).eq(&HEADERS));
    form
}

async fn send(world: &World, message: Message) {
    world.send_all(&[Sending::of(message)]).await;
}

#[test]
fn the_documented_configuration_makes_these_headers() {
    let setting = "transforms.outbox.table.fields.additional.placement=";
    let placement = EVENTS.lines().find_map(|line| line.strip_prefix(setting));
    let columns = placement.expect("the setting").split(',');
    let header = |column: &'static str| column.replace(":header", "");
    let made = columns.map(|column| header(column).rsplit(':').next().map(str::to_owned));
    let expected = HEADERS[1..].iter().map(|name| Some((*name).to_owned()));
    assert!(made.eq(expected), "{placement:?}");
    for header in HEADERS {
        assert!(EVENTS.contains(&format!("`{header}`")), "{header}");
    }
}

async fn remembered(world: &World) -> Vec<EventId> {
    sqlx::query_scalar("SELECT event_id FROM inbox ORDER BY event_id")
        .fetch_all(&world.db.pool)
        .await
        .expect("the inbox")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_an_event_sent_by_the_relay_and_by_debezium_is_claimed_once() {
    let world = World::new().await;
    // The scans leave new returns alone: only the messages lead to the claim.
    let flags = ["--initiated-grace-secs=3600"];
    let running = world.start(world.simulated(), &flags).await;
    let debezium_first = world.file(1).await;
    let relay_first = world.file(2).await;
    let first = form(&world, &debezium_first).await;
    assert_eq!(first.payload, Some(body(&debezium_first)));
    send(&world, first).await;
    world.announce(&relay_first).await;
    world.wait_for(debezium_first.return_id, "refunded").await;
    world.wait_for(relay_first.return_id, "refunded").await;
    assert_eq!(
        remembered(&world).await,
        [debezium_first.event_id, relay_first.event_id]
    );

    world.announce(&debezium_first).await;
    send(&world, form(&world, &relay_first).await).await;
    until_true("both are seen to be repeats", || {
        running.messages("duplicate") == 2
    })
    .await;
    assert_eq!(running.messages("claimed"), 2);
    assert_eq!(world.effects(), 2);
    assert_eq!(
        remembered(&world).await,
        [debezium_first.event_id, relay_first.event_id]
    );
    for filed in [debezium_first, relay_first] {
        let events = world.audited(filed.return_id).await;
        assert_eq!(events.len(), 4);
        let traces: Vec<_> = events.iter().map(|event| &event.trace_id).collect();
        assert!(traces[1].is_some() && traces[1] == traces[2], "{traces:?}");
    }
    // Debezium passes the row's own trace on.
    let events = world.audited(debezium_first.return_id).await;
    assert_eq!(events[1].trace_id, events[0].trace_id);
    assert_eq!(world.count("SELECT COUNT(*) FROM dead_letters").await, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_headers_of_debezium_are_checked_like_headers_of_the_relay() {
    let world = World::new().await;
    let filed = world.file(1).await;
    let stranger = "AaIIo12vd2ii1F0+YpCC/w==";
    for (name, value) in [
        ("id", stranger),
        ("id", "019ab000-0000-7000-8000-000000000001"),
        ("event_type", "refund.succeeded"),
    ] {
        send(&world, form(&world, &filed).await.with(name, value)).await;
    }
    let flags = ["--initiated-grace-secs=3600"];
    let running = world.start(world.simulated(), &flags).await;
    until_true("all are dead letters", || {
        running.messages("dead_letter") == 3
    })
    .await;
    let reasons: Vec<String> =
        sqlx::query_scalar("SELECT reason FROM dead_letters ORDER BY offset_id")
            .fetch_all(&world.db.pool)
            .await
            .expect("dead letters");
    assert_eq!(reasons, ["other_event", "bad_event_id", "unknown_type"]);
    assert_eq!(world.status(filed.return_id).await.0, "initiated");

    send(&world, form(&world, &filed).await).await;
    world.wait_for(filed.return_id, "refunded").await;
    running.stop().await;
}
