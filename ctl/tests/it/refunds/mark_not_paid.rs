//! `refunds mark-not-paid`: a parked attempt ends, and the return may be retried.

use serde_json::json;

use super::fixture::{ADA, BOB, Fixture};

#[tokio::test]
async fn p7_a_parked_attempt_is_marked_not_paid_with_evidence() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    let name = id.to_string();
    let evidence = ["--evidence", "provider: unknown"];
    fixture.act(64, ADA, &["mark-not-paid", &name, "--attempt", "1"]);
    fixture.act(
        64,
        ADA,
        &[&["mark-not-paid", &name], &evidence[..]].concat(),
    );
    let args = [&["mark-not-paid", &name, "--attempt", "1"], &evidence[..]].concat();
    let report = fixture.act(0, ADA, &args).json();
    assert_eq!(
        (&report["status"], &report["attempt"]),
        (&json!("refund_failed"), &json!(1))
    );
    let attempts = fixture.attempts(id).await;
    assert_eq!(attempts[0].state, "declined");
    assert_eq!(attempts[0].last_error.as_deref(), Some("marked_not_paid"));
    assert_eq!(fixture.refunded_amount(1).await, "0");
    let records = fixture.records().await;
    assert_eq!(records.len(), 1);
    assert_eq!(
        (records[0].verb.as_str(), records[0].reason.as_str()),
        ("refund.mark_not_paid", "provider: unknown")
    );
    let (event, actor, data) = fixture.audited(id).await;
    assert_eq!(
        (event.as_str(), actor.as_str(), &data["operator_action"]),
        ("refund.marked_not_paid", "admin:7", &json!(records[0].id))
    );

    let again = fixture.act(1, BOB, &args);
    assert!(
        again.stderr.contains("it is refund_failed"),
        "{}",
        again.stderr
    );
    fixture.act(0, BOB, &["retry", &name, "--attempt", "1", "--reason", "x"]);
    assert_eq!(fixture.states(id).await, ["declined", "claimed"]);
    // The evidence about attempt 1 does not apply to attempt 2.
    let late = fixture.act(1, BOB, &args);
    assert!(
        late.stderr
            .contains("attempt 1 is not its last attempt, which is 2"),
        "{}",
        late.stderr
    );
    let second = [&["mark-not-paid", &name, "--attempt", "2"], &evidence[..]].concat();
    let working = fixture.act(1, BOB, &second);
    assert!(
        working.stderr.contains("attempt 2 is claimed, not parked"),
        "{}",
        working.stderr
    );
}

#[tokio::test]
async fn p5_a_return_whose_earlier_attempt_paid_is_not_marked_not_paid() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    fixture
        .execute(
            "UPDATE refunds SET state = 'succeeded' WHERE return_id = ?",
            id.0,
        )
        .await;
    fixture.attempt(id, 2, "parked").await;
    let before = fixture.everything(id).await;
    let args = [
        "mark-not-paid",
        &id.to_string(),
        "--attempt",
        "2",
        "--evidence",
        "x",
    ];
    let ran = fixture.act(1, ADA, &args);
    assert!(
        ran.stderr.contains("reported that attempt 1 has paid"),
        "{}",
        ran.stderr
    );
    assert_eq!(fixture.everything(id).await, before);
}

#[tokio::test]
async fn p5_an_attempt_that_the_gateway_reported_as_paid_is_not_marked_not_paid() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    let name = id.to_string();
    let args = ["mark-not-paid", &name, "--attempt", "1", "--evidence", "x"];
    for sql in [
        "UPDATE refunds SET last_error = 'paid_more_than_order_total' WHERE return_id = ?",
        "UPDATE refunds SET last_error = 'several_found' WHERE return_id = ?",
    ] {
        fixture.execute(sql, id.0).await;
        let before = fixture.everything(id).await;
        let ran = fixture.act(1, ADA, &args);
        assert!(
            ran.stderr.contains("reported that attempt 1 has paid"),
            "{sql}: {}",
            ran.stderr
        );
        assert_eq!(fixture.everything(id).await, before);
        assert_eq!(fixture.possible(id), ["request-mark-paid"]);
    }
}
