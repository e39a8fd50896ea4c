//! `outbox discard`, and the records that every action leaves.

use serde_json::{Value, json};
use shared::domain::ids::{OrderId, Shard};
use sqlx::Executor;

use super::{FOLLOWS, Fixture, REFUSED};

#[tokio::test]
async fn p3_discard_needs_a_name_and_a_reason() {
    let fixture = Fixture::new().await;
    let event = fixture.park(5, 3, 1, REFUSED).await.to_string();
    let discard = ["discard", "--event", &event];
    for (more, text) in [
        (&["--by", "j.doe"][..], "--reason"),
        (
            &["--by", "j.doe", "--reason", " \t "],
            "must be 1 to 2000 characters",
        ),
        (&["--reason", "x"], "--by"),
        (&["--by", " ", "--reason", "x"], "printable ASCII"),
    ] {
        let ran = fixture.outbox(64, &[&discard[..], more].concat());
        assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
    }
    assert_eq!(fixture.parked().await.len(), 1);
    assert!(fixture.actions().await.is_empty());
}

#[tokio::test]
async fn p3_a_discarded_row_is_still_identified_by_its_record() {
    let fixture = Fixture::new().await;
    let culprit = fixture.park(5, 3, 1, REFUSED).await;
    fixture.park(5, 8, 2, FOLLOWS).await;
    let event = culprit.to_string();
    let report = fixture.act(0, &["discard", "--event", &event]).json();
    assert_eq!(
        report,
        json!({
            "action": "discard", "discarded_rows": 1, "event_id": event, "shard": Shard::of(OrderId(5)), "id": 3,
            "order": "5", "still_parked": 1
        })
    );
    let seqs: Vec<i32> = fixture.parked().await.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, [2]);
    assert!(fixture.waiting().await.is_empty());
    assert_eq!(fixture.generation(5).await, 1);

    let actions = fixture.actions().await;
    let [action] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    assert_eq!(
        (action.verb.as_str(), action.actor_id.as_str()),
        ("outbox.discard", "j.doe")
    );
    assert_eq!(
        (action.event_id, action.return_id),
        (Some(culprit), Some(50))
    );
    assert_eq!(action.shard, Some(Shard::of(OrderId(5)).0));
    assert!(
        action
            .db_account
            .as_ref()
            .is_some_and(|account| account.contains('@'))
    );
    let details: Value = serde_json::from_str(&action.details).expect("JSON");
    for (name, value) in [
        ("id", json!(3)),
        ("order", json!("5")),
        ("seq", json!(1)),
        ("event_type", json!("return.tested")),
        ("topic", json!("some.topic")),
        ("first_error", json!(REFUSED)),
        ("payload_bytes", json!(10)),
    ] {
        assert_eq!(details[name], value, "{name}");
    }

    let again = fixture.act(1, &["discard", "--event", &event]);
    assert!(again.stderr.contains("is not parked"), "{}", again.stderr);
    assert_eq!(fixture.actions().await.len(), 1);
}

#[tokio::test]
async fn a_waiting_event_is_not_discarded() {
    let fixture = Fixture::new().await;
    let event = fixture.wait_in_outbox(5, 3, 1).await.to_string();
    fixture.act(1, &["discard", "--event", &event]);
    assert_eq!(fixture.waiting().await.len(), 1);
}

#[tokio::test]
async fn operator_actions_cannot_be_changed_or_deleted() {
    let fixture = Fixture::new().await;
    fixture.act(0, &["pause", "--shard", "3"]);
    for forbidden in [
        "UPDATE operator_actions SET reason = ''",
        "DELETE FROM operator_actions",
    ] {
        let error = fixture
            .db
            .pool
            .execute(forbidden)
            .await
            .expect_err("forbidden");
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}
