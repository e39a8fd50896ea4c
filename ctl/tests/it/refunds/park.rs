//! `refunds park`: an attempt whose account is gone, so that people can decide about it.

use serde_json::json;
use shared::domain::status::Action;

use super::fixture::{ADA, Fixture};

const LATE: &str = "UPDATE refunds SET next_check_at = UTC_TIMESTAMP(6) - INTERVAL ? MINUTE";

#[tokio::test]
async fn p5_p7_an_attempt_that_no_consumer_carries_on_is_parked_with_a_reason() {
    let fixture = Fixture::new().await;
    let id = fixture.file(1).await;
    fixture.attempt(id, 1, "unknown").await;
    fixture.advance(id, &[Action::Approve, Action::Claim]).await;
    let name = id.to_string();
    let park = ["park", &name, "--attempt", "1", "--reason", "INC-7: closed"];
    fixture.execute(LATE, 4).await;
    let refused = fixture.act(1, ADA, &park).stderr;
    assert!(
        refused.contains("the consumer still works on it"),
        "{refused}"
    );
    assert_eq!(fixture.states(id).await, ["unknown"]);

    fixture.execute(LATE, 6).await;
    assert!(fixture.possible(id).contains(&"park".to_owned()));
    let report = fixture.act(0, ADA, &park).json();
    assert_eq!(report["status"], "refund_pending");
    let attempts = fixture.attempts(id).await;
    assert_eq!(attempts[0].state, "parked");
    assert_eq!(attempts[0].last_error.as_deref(), Some("given_up"));
    let records = fixture.records().await;
    assert_eq!(records[0].verb, "refund.park");
    assert_eq!(records[0].details()["was"], "unknown");
    let (event, actor, data) = fixture.audited(id).await;
    assert_eq!(
        (event.as_str(), actor.as_str()),
        ("refund.parked", "admin:7")
    );
    assert_eq!(data["reason"], json!("given_up"));
    let possible = fixture.possible(id);
    for next in ["request-mark-paid", "request-mark-not-paid"] {
        assert!(possible.contains(&next.to_owned()), "{possible:?}");
    }
    fixture.act(1, ADA, &park);
}
