//! `refunds request-mark-not-paid` and `confirm-mark-not-paid`: two persons, because the return may then be paid again.

use serde_json::json;
use shared::domain::ids::ReturnId;
use shared::domain::status::Action;

use super::fixture::{ADA, BOB, Fixture, concurrently};
use crate::harness::run;

/// The arguments that request to mark this attempt as not paid.
fn not_paid<'a>(id: &'a str, attempt: &'a str) -> [&'a str; 6] {
    let evidence = "provider: unknown";
    [
        "request-mark-not-paid",
        id,
        "--attempt",
        attempt,
        "--evidence",
        evidence,
    ]
}

impl Fixture {
    /// Requests as Ada; returns the number of the request.
    pub(super) async fn request_not_paid(&self, id: ReturnId) -> String {
        self.act(0, ADA, &not_paid(&id.to_string(), "1"));
        self.records()
            .await
            .last()
            .expect("a request")
            .id
            .to_string()
    }

    #[track_caller]
    fn confirm_not_paid(&self, code: i32, user: &str, id: ReturnId, request: &str, text: &str) {
        let args = [
            "confirm-mark-not-paid",
            &id.to_string(),
            "--request",
            request,
        ];
        let ran = self.act(code, user, &args);
        assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
    }
}

/// Whatever one admin types: a retry after it would send a second payment on one person's word.
#[tokio::test]
async fn p5_one_person_alone_marks_nothing_as_not_paid() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    let name = id.to_string();
    let token = fixture.token(ADA, "admin");
    let keys = fixture.key("keys.json").display().to_string();
    let variables = [
        ("DATABASE_URL", fixture.db.url()),
        ("AUTH_KEYS_FILE", &keys),
        ("OPERATOR_TOKEN", &token),
    ];
    let attempt = ["--attempt", "1", "--evidence", "x"];
    for args in [
        [&["refunds", "mark-not-paid", &name], &attempt[..]].concat(),
        [&["refunds", "request-mark-not-paid", &name], &attempt[..]].concat(),
        vec!["refunds", "confirm-mark-not-paid", &name, "--request", "1"],
        vec!["refunds", "retry", &name, "--attempt", "1", "--reason", "x"],
    ] {
        run(&args, &variables);
        assert_eq!(fixture.states(id).await, ["parked"], "{args:?}");
    }
}

#[tokio::test]
async fn p5_p7_two_persons_mark_a_parked_attempt_as_not_paid_with_evidence() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    let name = id.to_string();
    fixture.act(64, ADA, &["request-mark-not-paid", &name, "--attempt", "1"]);
    let coded = [
        &not_paid(&name, "1")[..],
        &["--reason-code", "wrong_account"],
    ]
    .concat();
    fixture.act(0, ADA, &not_paid(&name, "1"));
    let asked = fixture.act(0, ADA, &coded).json();
    assert_eq!(
        (&asked["changed"], &asked["requested_by"]),
        (&json!(true), &json!(7))
    );
    let again = fixture.act(0, ADA, &coded).json();
    assert_eq!(
        (&again["changed"], &again["request"]),
        (&json!(false), &asked["request"])
    );
    assert_eq!(fixture.states(id).await, ["parked"], "nothing yet");
    let request = asked["request"].to_string();
    fixture.confirm_not_paid(1, ADA, id, &request, "is your own (user 7)");
    let args = ["confirm-mark-not-paid", &name, "--request", &request];
    let confirmed = fixture.act(0, BOB, &args).json();
    for (field, value) in [
        ("status", json!("refund_failed")),
        ("attempt", json!(1)),
        ("requested_by", json!(7)),
        ("decided_by", json!(8)),
        ("request", asked["request"].clone()),
    ] {
        assert_eq!(confirmed[field], value, "{field}");
    }
    let attempts = fixture.attempts(id).await;
    assert_eq!(attempts[0].state, "declined");
    assert_eq!(attempts[0].last_error.as_deref(), Some("marked_not_paid"));
    assert_eq!(fixture.refunded_amount(1).await, "0");
    let records = fixture.records().await;
    let verbs: Vec<(&str, &str)> = records
        .iter()
        .map(|one| (one.verb.as_str(), one.actor_id.as_str()))
        .collect();
    assert_eq!(
        verbs,
        [
            ("refund.request_mark_not_paid", ADA),
            ("refund.request_mark_not_paid", ADA),
            ("refund.confirm_mark_not_paid", BOB)
        ]
    );
    assert_eq!(records[1].reason, "provider: unknown");
    assert_eq!(records[2].details()["was"], "not_found");
    assert_eq!(records[2].details()["reason_code"], "wrong_account");
    let (event, actor, data) = fixture.audited(id).await;
    assert_eq!(
        (event.as_str(), actor.as_str()),
        ("refund.marked_not_paid", "admin:8")
    );
    for (field, value) in [
        ("operator_action", json!(records[2].id)),
        ("reason_code", json!("wrong_account")),
        ("request", json!(records[1].id)),
        ("requested_by", json!(7)),
        ("attempt", json!(1)),
    ] {
        assert_eq!(data[field], value, "{field}");
    }
    fixture.confirm_not_paid(1, BOB, id, &request, "it is refund_failed");
    fixture.act(1, BOB, &not_paid(&name, "1"));
    fixture.act(0, BOB, &["retry", &name, "--attempt", "1", "--reason", "x"]);
    assert_eq!(fixture.states(id).await, ["declined", "claimed"]);
    // The evidence about attempt 1 does not apply to attempt 2.
    for (attempt, why) in [
        ("1", "attempt 1 is not its last attempt, which is 2"),
        ("2", "attempt 2 is claimed, not parked"),
    ] {
        let ran = fixture.act(1, BOB, &not_paid(&name, attempt));
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
}

/// The latest statement counts: a person who confirms has seen only one of the two.
#[tokio::test]
async fn p5_a_request_is_confirmed_only_as_what_it_states() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    let unpaid = fixture.request_not_paid(id).await;
    let paid = ["confirm-mark-paid", &id.to_string(), "--request", &unpaid];
    let ran = fixture.act(1, BOB, &paid);
    assert!(
        ran.stderr.contains("states that attempt 1 was not paid"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        fixture.possible(id),
        [
            "request-mark-paid",
            "request-mark-not-paid",
            "confirm-mark-not-paid"
        ]
    );
    fixture.request(0, BOB, id);
    fixture.confirm_not_paid(1, "9", id, &unpaid, "the last request is");
    let last = fixture
        .records()
        .await
        .last()
        .expect("a request")
        .id
        .to_string();
    fixture.confirm_not_paid(1, "9", id, &last, "states that attempt 1 was paid");
    assert_eq!(fixture.states(id).await, ["parked"]);
}

#[tokio::test]
async fn p8_a_request_ends_when_anything_happens_to_the_return() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    fixture.confirm_not_paid(1, BOB, id, "1", "nobody has requested");
    let request = fixture.request_not_paid(id).await;
    fixture.advance(id, &[Action::Disagreement]).await;
    fixture.confirm_not_paid(1, BOB, id, &request, "which has changed since");
    let request = fixture.request_not_paid(id).await;
    // The provider reports meanwhile that it has paid.
    let paid = "UPDATE refunds SET last_error = 'several_found' WHERE return_id = ?";
    fixture.execute(paid, id.0).await;
    let before = fixture.everything(id).await;
    fixture.confirm_not_paid(1, BOB, id, &request, "reported that attempt 1 has paid");
    assert_eq!(fixture.everything(id).await, before);
}

#[tokio::test]
async fn p5_confirmations_at_once_count_once() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    let request = fixture.request_not_paid(id).await;
    let name = id.to_string();
    let args = ["confirm-mark-not-paid", &name, "--request", &request];
    let codes = concurrently(&fixture, [BOB, "9", "10", "11"], &args);
    assert_eq!(codes, [0, 1, 1, 1]);
    assert_eq!(fixture.records().await.len(), 2);
    fixture.audited(id).await;
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
    let ran = fixture.act(1, ADA, &not_paid(&id.to_string(), "2"));
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
    for sql in [
        "UPDATE refunds SET last_error = 'paid_more_than_order_total' WHERE return_id = ?",
        "UPDATE refunds SET last_error = 'several_found' WHERE return_id = ?",
    ] {
        fixture.execute(sql, id.0).await;
        let before = fixture.everything(id).await;
        let ran = fixture.act(1, ADA, &not_paid(&name, "1"));
        assert!(
            ran.stderr.contains("reported that attempt 1 has paid"),
            "{sql}: {}",
            ran.stderr
        );
        assert_eq!(fixture.everything(id).await, before);
        assert_eq!(fixture.possible(id), ["request-mark-paid"]);
    }
}
