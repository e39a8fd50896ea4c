//! `outbox topics`, `park` and `move`: rows of a topic that will never exist get another one.

use serde_json::{Value, json};
use shared::domain::ids::OrderId;
use shared::domain::ids::Shard;

use super::{Fixture, REFUSED};

/// Three rows of the mistyped topic, in two orders, and one of another topic.
async fn mistyped() -> Fixture {
    let fixture = Fixture::new().await;
    for (order, id, seq) in [(5, 3, 1), (5, 4, 2), (6, 5, 1), (7, 6, 1)] {
        fixture.wait_in_outbox(order, id, seq).await;
    }
    fixture
        .run("UPDATE outbox SET topic = 'order returns' WHERE msg_key <> '7'")
        .await;
    fixture
}

fn topic(fixture: &Fixture, name: &str) -> Value {
    let topics = fixture.read(&["topics"]);
    let mut topics = topics["topics"].as_array().expect("a list").iter();
    let found = topics.find(|topic| topic["topic"] == name);
    found.cloned().unwrap_or_default()
}

#[tokio::test]
async fn topics_show_what_waits_for_which_topic() {
    let fixture = mistyped().await;
    fixture.park(8, 9, 1, REFUSED).await;
    let bad = topic(&fixture, "order returns");
    assert_eq!(
        (&bad["waiting_rows"], &bad["parked_rows"]),
        (&3.into(), &0.into())
    );
    assert_eq!(bad["legal"], false);
    assert!(bad["oldest_age_secs"].as_f64() >= Some(90.0), "{bad}");
    let good = topic(&fixture, "some.topic");
    assert_eq!(
        (&good["waiting_rows"], &good["parked_rows"]),
        (&1.into(), &1.into())
    );
    assert_eq!(good["legal"], true);
    let text = fixture.outbox(0, &["topics"]).stdout;
    assert!(
        text.contains("illegal") && text.contains("some.topic"),
        "{text}"
    );
}

#[tokio::test]
async fn p3_rows_of_a_mistyped_topic_are_parked_moved_and_put_back_by_a_named_person() {
    let fixture = mistyped().await;
    let before = fixture.waiting().await;
    let parked = fixture.act(0, &["park", "--topic", "order returns"]).json();
    assert_eq!(
        parked,
        json!({"action": "park", "topic": "order returns", "parked_rows": 3})
    );
    assert_eq!(
        fixture.waiting().await.len(),
        1,
        "the other topic is not touched"
    );
    assert!(fixture.generation(5).await > 0, "the relay is told");
    let shown = fixture.outbox(0, &["parked"]).stdout;
    assert!(shown.contains("INC-7"), "{shown}");
    fixture.act(1, &["park", "--topic", "order returns"]);

    let moved = fixture.act(
        0,
        &["move", "--topic", "order returns", "--to", "order.returns"],
    );
    assert_eq!(moved.json()["moved_rows"], 3);
    fixture.act(0, &["redrive", "--all"]);
    let mut expected = before;
    for row in expected.iter_mut().filter(|row| row.msg_key != "7") {
        row.topic = "order.returns".to_owned();
    }
    assert_eq!(
        fixture.waiting().await,
        expected,
        "all but the topic is as before"
    );

    let actions = fixture.actions().await;
    let verbs = |verb: &str| actions.iter().filter(|action| action.verb == verb).count();
    assert_eq!(
        (
            verbs("outbox.park"),
            verbs("outbox.move"),
            verbs("outbox.redrive")
        ),
        (3, 3, 3)
    );
    let action = actions.iter().find(|action| action.verb == "outbox.move");
    let action = action.expect("three");
    assert_eq!(
        (action.actor_id.as_str(), action.reason.as_str()),
        ("j.doe", "INC-7: größer")
    );
    let details: Value = serde_json::from_str(&action.details).expect("JSON");
    assert_eq!(details["topic"], "order returns");
    assert_eq!(details["moved_to"], "order.returns");
}

/// A transaction holds the shard's lease row, which the relay has to renew.
#[tokio::test]
async fn many_rows_are_parked_and_moved_in_transactions_of_500() {
    const ROWS: i64 = 900;
    let fixture = Fixture::new().await;
    let rows = "INSERT INTO outbox (shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, created_at) \
                WITH RECURSIVE row_ids AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM row_ids WHERE id < 900) \
                SELECT 3, id, UUID_TO_BIN(UUID()), id, 1, 'return.tested', 'order returns', '1', '{}', UTC_TIMESTAMP(6) \
                FROM row_ids";
    fixture.run(rows).await;
    let parked = fixture.act(0, &["park", "--topic", "order returns"]);
    assert_eq!(parked.json()["parked_rows"], ROWS);
    let to = ["move", "--topic", "order returns", "--to", "order.returns"];
    assert_eq!(fixture.act(0, &to).json()["moved_rows"], ROWS);
    let parked = fixture.parked().await;
    assert!(parked.iter().all(|row| row.topic == "order.returns"));

    // Every row of a statement has its time.
    let of_one: Vec<(String, i64)> = sqlx::query_as(
        "SELECT verb, COUNT(*) FROM operator_actions GROUP BY verb, created_at ORDER BY verb DESC, created_at",
    )
    .fetch_all(&fixture.db.pool)
    .await
    .expect("actions");
    let groups: Vec<(&str, i64)> = of_one
        .iter()
        .map(|(verb, rows)| (verb.as_str(), *rows))
        .collect();
    assert_eq!(
        groups,
        [
            ("outbox.park", 500),
            ("outbox.park", 400),
            ("outbox.move", 500),
            ("outbox.move", 400)
        ]
    );
}

#[tokio::test]
async fn a_row_is_never_moved_to_a_name_that_kafka_refuses() {
    let fixture = Fixture::new().await;
    for name in ["", "..", "order returns", &"t".repeat(250)] {
        fixture.act(64, &["move", "--topic", "a", "--to", name]);
    }
}

/// The relay locks the lease row before it parks: neither sees half of the other's work.
#[tokio::test]
async fn p4_parking_waits_for_the_lease_row() {
    let fixture = mistyped().await;
    let mut relay = fixture.db.pool.begin().await.expect("begin");
    sqlx::query("SELECT 1 FROM outbox_lease WHERE shard = ? FOR UPDATE")
        .bind(Shard::of(OrderId(5)))
        .execute(&mut *relay)
        .await
        .expect("lock");
    let args = [
        "outbox",
        "park",
        "--topic",
        "order returns",
        "--by",
        "j.doe",
        "--reason",
        "x",
    ];
    let park = super::spawn(&fixture, &args);
    super::await_lock_waiter(&fixture).await;
    relay.commit().await.expect("commit");
    let ran = super::ended(park);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(fixture.parked().await.len(), 3);
}
