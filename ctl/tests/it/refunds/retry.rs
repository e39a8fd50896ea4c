//! `refunds retry`: one more attempt, free and due, in the transaction that moves the return.

use serde_json::json;
use shared::domain::ids::EventId;
use shared::domain::status::Action;

use super::fixture::{ADA, BOB, Fixture, concurrently};

#[tokio::test]
async fn p7_a_retry_inserts_the_next_attempt_and_records_who_requested_it() {
    let fixture = Fixture::new().await;
    let id = fixture.failed(1).await;
    let name = id.to_string();
    let report = fixture
        .act(
            0,
            ADA,
            &[
                "retry",
                &name,
                "--attempt",
                "1",
                "--reason",
                " INC-7: größer ",
            ],
        )
        .json();
    let first_event: EventId =
        sqlx::query_scalar("SELECT event_id FROM return_events WHERE return_id = ? AND seq = 1")
            .bind(id)
            .fetch_one(&fixture.db.pool)
            .await
            .expect("the first event");
    let key = format!("refund-{first_event}-2");
    for (field, value) in [
        ("status", json!("refund_pending")),
        ("attempt", json!(2)),
        ("seq", json!(5)),
        ("decided_by", json!(7)),
        ("idempotency_key", json!(key)),
    ] {
        assert_eq!(report[field], value, "{field}");
    }
    let attempts = fixture.attempts(id).await;
    assert_eq!(attempts.len(), 2);
    let next = &attempts[1];
    assert_eq!(
        (next.state.as_str(), &next.idempotency_key),
        ("claimed", &key)
    );
    assert_eq!(next.amount.normalize().to_string(), "49.9");
    assert_eq!(
        (&next.owner, next.first_sent_at, &next.gateway),
        (&None, None, &None)
    );
    // The condition of the consumer's scan.
    let due: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM refunds WHERE state = 'claimed' AND next_check_at <= UTC_TIMESTAMP(6) \
         AND call_deadline IS NULL AND gateway IS NULL",
    )
    .fetch_one(&fixture.db.pool)
    .await
    .expect("count");
    assert_eq!(due, 1);

    let records = fixture.records().await;
    let [record] = records.as_slice() else {
        panic!("{records:?}");
    };
    assert_eq!(
        (record.actor_type.as_str(), record.actor_id.as_str()),
        ("admin", ADA)
    );
    assert_eq!(
        (
            record.verb.as_str(),
            record.return_id,
            record.reason.as_str()
        ),
        ("refund.retry", Some(id.0), "INC-7: größer")
    );
    assert_eq!(record.details()["attempt"], 2);
    let (event, actor, data) = fixture.audited(id).await;
    assert_eq!(
        (event.as_str(), actor.as_str()),
        ("refund.retried", "admin:7")
    );
    assert_eq!(
        (&data["attempt"], &data["operator_action"]),
        (&json!(2), &json!(record.id))
    );
    assert!(!data.to_string().contains("INC-7"), "no personal text");

    let again = fixture.act(1, BOB, &["retry", &name, "--attempt", "1", "--reason", "x"]);
    assert!(
        again.stderr.contains("it is refund_pending"),
        "{}",
        again.stderr
    );
    assert_eq!(fixture.records().await.len(), 1);
    assert_eq!(report["operator_action"], record.id);

    // The same after the requested attempt was declined, because the command named attempt 1.
    let declined = "UPDATE refunds SET state = 'declined' WHERE return_id = ?";
    fixture.execute(declined, id.0).await;
    fixture.advance(id, &[Action::Decline]).await;
    for (attempt, text) in [
        ("1", "attempt 1 is not its last attempt, which is 2"),
        ("3", "it has no attempt 3"),
    ] {
        let args = ["retry", &name, "--attempt", attempt, "--reason", "x"];
        let ran = fixture.act(1, ADA, &args);
        assert!(ran.stderr.contains(text), "{}", ran.stderr);
    }
    fixture.act(64, ADA, &["retry", &name, "--reason", "x"]);
    assert_eq!(fixture.states(id).await, ["declined", "declined"]);
    fixture.act(0, ADA, &["retry", &name, "--attempt", "2", "--reason", "x"]);
    assert_eq!(
        fixture.states(id).await,
        ["declined", "declined", "claimed"]
    );
}

#[tokio::test]
async fn p5_retries_at_once_make_one_attempt() {
    let fixture = Fixture::new().await;
    let id = fixture.failed(1).await;
    let name = id.to_string();
    let args = ["retry", &name, "--attempt", "1", "--reason", "x"];
    let codes = concurrently(&fixture, [ADA, BOB, "9", "10"], &args);
    assert_eq!(codes, [0, 1, 1, 1]);
    assert_eq!(fixture.states(id).await, ["declined", "claimed"]);
    assert_eq!(fixture.records().await.len(), 1);
    fixture.audited(id).await;
}

#[tokio::test]
async fn p5_no_retry_while_an_attempt_may_have_paid_or_too_little_is_left() {
    let fixture = Fixture::new().await;
    let parked = fixture.parked(1).await;
    let failed = fixture.failed(2).await;
    fixture
        .execute("UPDATE orders SET refunded_amount = 0.01 WHERE id = ?", 2)
        .await;
    let odd = fixture.failed(3).await;
    fixture
        .execute(
            "UPDATE refunds SET state = 'unknown' WHERE return_id = ?",
            odd.0,
        )
        .await;
    for (id, text) in [
        (parked, "only a return that is refund_failed"),
        (failed, "more than what is left of order 2: 49.89 EUR"),
        (odd, "attempt 1 is unknown"),
    ] {
        let before = fixture.everything(id).await;
        let ran = fixture.act(
            1,
            ADA,
            &["retry", &id.to_string(), "--attempt", "1", "--reason", "x"],
        );
        assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
        assert_eq!(fixture.everything(id).await, before);
    }
}

#[tokio::test]
async fn a_retry_needs_a_reason() {
    let fixture = Fixture::new().await;
    let id = fixture.failed(1).await.to_string();
    let retry = ["retry", &id, "--attempt", "1"];
    for args in [retry.to_vec(), [&retry[..], &["--reason", " \t"]].concat()] {
        let ran = fixture.act(64, ADA, &args);
        assert!(
            ran.stderr.contains("--reason") || ran.stderr.contains("1 to 2000"),
            "{}",
            ran.stderr
        );
    }
}

/// A reader of the audit trail finds the operator's words by the number of the action; the code is for programs.
#[tokio::test]
async fn p7_the_event_has_the_reason_code_and_the_number_of_the_action() {
    let fixture = Fixture::new().await;
    let id = fixture.failed(1).await;
    let name = id.to_string();
    let args = ["retry", &name, "--attempt", "1", "--reason", "INC-7"];
    for bad in ["Too Big", "", &"x".repeat(33)] {
        fixture.act(64, ADA, &[&args[..], &["--reason-code", bad]].concat());
    }
    fixture.act(
        0,
        ADA,
        &[&args[..], &["--reason-code", "card_works"]].concat(),
    );
    let record = &fixture.records().await[0];
    assert_eq!(
        (record.reason.as_str(), &record.details()["reason_code"]),
        ("INC-7", &json!("card_works"))
    );
    let (_, _, data) = fixture.audited(id).await;
    assert_eq!(data["reason_code"], "card_works");
    assert_eq!(data["operator_action"], record.id);
    assert!(!data.to_string().contains("INC-7"), "{data}");
}
