//! `refunds request-mark-paid` and `confirm-mark-paid`: two persons, one payment counted, whatever happens meanwhile.

use jsonwebtoken::get_current_timestamp;
use serde_json::json;
use shared::domain::ids::ReturnId;
use shared::domain::status::Action;
use shared::domain::trace_context::TraceContext;
use sqlx::Executor;

use super::fixture::{ADA, BOB, Fixture, advance, concurrently, ended, mark_paid};
use crate::harness::await_lock_waiter;

impl Fixture {
    /// Confirms the last request there was.
    #[track_caller]
    fn confirm(&self, code: i32, user: &str, id: ReturnId, text: &str) {
        let request = &self.show(id)["mark_request"]["request"];
        let request = request.as_i64().unwrap_or(1);
        self.confirm_request(code, user, id, request, text);
    }

    async fn last_request(&self) -> String {
        let records = self.records().await;
        records.last().expect("a request").id.to_string()
    }

    #[track_caller]
    fn confirm_request(&self, code: i32, user: &str, id: ReturnId, request: i64, text: &str) {
        let args = [
            "confirm-mark-paid",
            &id.to_string(),
            "--request",
            &request.to_string(),
        ];
        let ran = self.act(code, user, &args);
        assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn p5_p7_two_persons_mark_a_parked_refund_as_paid_once() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    let name = id.to_string();
    let args = mark_paid(&name, "1", &["--gateway-ref", "re_9f3"]);
    let asked = fixture.act(0, ADA, &args).json();
    assert_eq!(
        (&asked["changed"], &asked["requested_by"]),
        (&json!(true), &json!(7))
    );
    let again = fixture.act(0, ADA, &args).json();
    assert_eq!(
        (&again["changed"], &again["request"]),
        (&json!(false), &asked["request"])
    );
    assert_eq!(fixture.records().await.len(), 1);
    assert_eq!(fixture.states(id).await, ["parked"], "nothing yet");
    assert_eq!(fixture.refunded_amount(1).await, "0");

    let number = asked["request"].to_string();
    fixture.act(64, BOB, &["confirm-mark-paid", &name]);
    let args = ["confirm-mark-paid", &name, "--request", &number];
    let confirmed = fixture.act(0, BOB, &args).json();
    for (field, value) in [
        ("status", json!("refunded")),
        ("attempt", json!(1)),
        ("requested_by", json!(7)),
        ("decided_by", json!(8)),
        ("request", asked["request"].clone()),
    ] {
        assert_eq!(confirmed[field], value, "{field}");
    }
    let attempts = fixture.attempts(id).await;
    assert_eq!(attempts[0].state, "succeeded");
    assert_eq!(attempts[0].gateway_ref.as_deref(), Some("re_9f3"));
    assert_eq!(
        (&attempts[0].owner, &attempts[0].last_error),
        (&None, &None)
    );
    assert_eq!(fixture.refunded_amount(1).await, "49.9");

    let records = fixture.records().await;
    let whats: Vec<(&str, &str)> = records
        .iter()
        .map(|one| (one.verb.as_str(), one.actor_id.as_str()))
        .collect();
    assert_eq!(
        whats,
        [
            ("refund.request_mark_paid", ADA),
            ("refund.confirm_mark_paid", BOB)
        ]
    );
    assert_eq!(records[0].reason, "line 14");
    assert_eq!(confirmed["operator_action"], records[1].id);
    for (field, value) in [
        ("request", json!(records[0].id)),
        ("requested_by", json!(7)),
        ("attempt", json!(1)),
        ("amount", json!("49.90")),
        ("gateway_ref", json!("re_9f3")),
    ] {
        assert_eq!(records[1].details()[field], value, "{field}");
    }
    let (event, actor, data) = fixture.audited(id).await;
    assert_eq!(
        (event.as_str(), actor.as_str()),
        ("refund.marked_paid", "admin:8")
    );
    assert_eq!(
        (&data["requested_by"], &data["gateway_ref"]),
        (&json!(7), &json!("re_9f3"))
    );

    fixture.confirm(1, BOB, id, "it is refunded");
    fixture.request(1, ADA, id);
    assert_eq!(fixture.refunded_amount(1).await, "49.9");
    assert_eq!(fixture.records().await.len(), 2);
}

#[tokio::test]
async fn a_failed_refund_is_marked_as_paid_too() {
    let fixture = Fixture::new().await;
    let id = fixture.failed(1).await;
    fixture.request(0, ADA, id);
    fixture.confirm(0, BOB, id, "");
    assert_eq!(fixture.states(id).await, ["succeeded"]);
    assert_eq!(fixture.refunded_amount(1).await, "49.9");
    fixture.audited(id).await;
}

#[tokio::test]
async fn nothing_is_confirmed_without_an_open_request_of_another_person() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    fixture.confirm(1, BOB, id, "nobody has requested");
    fixture.request(0, ADA, id);
    fixture.confirm(
        1,
        ADA,
        id,
        "is your own (user 7); another person has to confirm",
    );
    // A newer request replaces it, also for a person who has checked the older one.
    fixture.request(0, BOB, id);
    fixture.confirm(1, BOB, id, "is your own (user 8)");
    let older = fixture.records().await[0].id;
    fixture.confirm_request(1, "9", id, older, "the last request is");
    let before = fixture.everything(id).await;
    // A day passes: requests cannot be made older, so the newest one is copied as an old one.
    fixture
        .execute(
            "INSERT INTO operator_actions (actor_type, actor_id, verb, return_id, reason, created_at, details) \
             SELECT actor_type, actor_id, verb, return_id, reason, created_at - INTERVAL 86401 SECOND, details \
             FROM operator_actions WHERE return_id = ? ORDER BY id DESC LIMIT 1",
            id.0,
        )
        .await;
    fixture.confirm(1, ADA, id, "a request is good for a day");
    let after = fixture.everything(id).await;
    assert_eq!((after.0, &after.1), (before.0, &before.1));
    assert_eq!(fixture.refunded_amount(1).await, "0");
    // A new request is open again.
    fixture.request(0, BOB, id);
    fixture.confirm(0, ADA, id, "");
}

#[tokio::test]
async fn p8_a_request_does_not_outlive_the_state_it_was_made_for() {
    let fixture = Fixture::new().await;
    let id = fixture.failed(1).await;
    fixture.request(0, ADA, id);
    fixture.advance(id, &[Action::Disagreement]).await;
    fixture.confirm(1, BOB, id, "which has changed since");
    let shown = fixture.show(id);
    assert_eq!(shown["mark_request"]["open"], false);
    // Retried meanwhile: a consumer works on it.
    fixture.request(0, ADA, id);
    fixture.act(
        0,
        BOB,
        &["retry", &id.to_string(), "--attempt", "1", "--reason", "x"],
    );
    fixture.confirm(1, BOB, id, "attempt 2 is claimed, not parked");
    assert_eq!(fixture.refunded_amount(1).await, "0");
    fixture.audited(id).await;
}

/// Money that was paid is on record, also if the shop has written its order down, or another return of it was refunded.
#[tokio::test]
async fn p5_what_was_paid_is_recorded_whatever_is_left_of_the_order() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    for changed in [
        "UPDATE orders SET total = 20, refunded_amount = 20 WHERE id = ?",
        "INSERT INTO returns (order_id, customer_id, reason, status, version, policy_version, refund_amount, currency, \
         created_at, updated_at) VALUES (?, 42, 'x', 'refunded', 1, 'x', 10, 'EUR', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
    ] {
        fixture.execute(changed, 1).await;
    }
    fixture
        .execute(
            "UPDATE refunds SET last_error = 'paid_more_than_order_total' WHERE return_id = ?",
            id.0,
        )
        .await;
    let commands = fixture.show(id)["commands"].to_string();
    assert!(commands.contains("request-mark-paid"), "{commands}");
    fixture.request(0, ADA, id);
    fixture.confirm(0, BOB, id, "");
    assert_eq!(fixture.refunded_amount(1).await, "59.9");
    fixture.audited(id).await;
}

/// Two payments are possible: the consumer left attempt 1 succeeded, parked attempt 2, and counted nothing.
#[tokio::test]
async fn p5_a_payment_of_an_earlier_attempt_is_counted_once_and_not_for_the_last() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    fixture
        .execute(
            "UPDATE refunds SET state = 'succeeded', gateway_ref = 'a' WHERE return_id = ?",
            id.0,
        )
        .await;
    fixture.attempt(id, 2, "parked").await;
    fixture.request(0, ADA, id);
    fixture.confirm(0, BOB, id, "");
    assert_eq!(fixture.states(id).await, ["succeeded", "void"]);
    assert_eq!(
        fixture.attempts(id).await[0].gateway_ref.as_deref(),
        Some("a")
    );
    assert_eq!(fixture.refunded_amount(1).await, "49.9");
}

/// Attempt 1 was declined and paid late, as a person has found out. Attempt 2 is parked.
#[tokio::test]
async fn p5_the_attempt_that_paid_is_named_and_the_parked_one_behind_it_becomes_void() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    fixture
        .execute(
            "UPDATE refunds SET state = 'declined' WHERE return_id = ?",
            id.0,
        )
        .await;
    fixture.attempt(id, 2, "parked").await;
    let name = id.to_string();
    let ran = fixture.act(1, ADA, &mark_paid(&name, "3", &[]));
    assert!(ran.stderr.contains("it has no attempt 3"), "{}", ran.stderr);
    fixture.request(0, ADA, id);
    assert_eq!(fixture.show(id)["mark_request"]["attempt"], 1);
    // A request about another attempt replaces this one.
    let other = mark_paid(&name, "2", &[]);
    assert_eq!(fixture.act(0, ADA, &other).json()["changed"], true);
    assert_eq!(fixture.request(0, ADA, id).json()["changed"], true);
    fixture.confirm(0, BOB, id, "");
    assert_eq!(fixture.states(id).await, ["succeeded", "void"]);
    assert_eq!(fixture.refunded_amount(1).await, "49.9");
    let (_, _, data) = fixture.audited(id).await;
    assert_eq!(data["attempt"], 1);
}

#[tokio::test]
async fn p5_the_gateways_own_reference_is_not_replaced_by_a_typed_one() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    let known = "UPDATE refunds SET gateway_ref = 'own' WHERE return_id = ?";
    fixture.execute(known, id.0).await;
    let name = id.to_string();
    let typed = |reference| mark_paid(&name, "1", &["--gateway-ref", reference]);
    let ran = fixture.act(1, ADA, &typed("re_9f3"));
    assert!(
        ran.stderr
            .contains("has the reference own from the gateway"),
        "{}",
        ran.stderr
    );
    assert_eq!(fixture.records().await.len(), 0);
    fixture.act(0, ADA, &typed("own"));
    // The reference became known between the request and the confirmation.
    let other = fixture.parked(2).await;
    let name = other.to_string();
    let args = mark_paid(&name, "1", &["--gateway-ref", "re_9f3"]);
    fixture.act(0, ADA, &args);
    fixture.execute(known, other.0).await;
    let before = fixture.everything(other).await;
    fixture.confirm(1, BOB, other, "has the reference own from the gateway");
    assert_eq!(fixture.everything(other).await, before);
    // If no reference is typed, the gateway's stays.
    fixture.request(0, ADA, other);
    fixture.confirm(0, BOB, other, "");
    assert_eq!(
        fixture.attempts(other).await[0].gateway_ref.as_deref(),
        Some("own")
    );
    assert_eq!(fixture.audited(other).await.2["gateway_ref"], "own");
}

/// Two tokens are of the same person if the number is equal, in whichever claim it is.
#[tokio::test]
async fn p5_another_form_of_the_same_persons_token_is_no_second_person() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    fixture.request(0, ADA, id);
    let (name, request) = (id.to_string(), fixture.last_request().await);
    let args = ["confirm-mark-paid", &name, "--request", &request];
    let exp = get_current_timestamp() + 60;
    for claims in [
        json!({"sub": "7", "exp": exp}),
        json!({"sub": 7, "exp": exp}),
        json!({"user_id": "7", "exp": exp}),
        json!({"user_id": 7, "sub": "auth0|x", "exp": exp}),
    ] {
        let ran = fixture.act_with(1, &fixture.signed(&claims), &args);
        assert!(
            ran.stderr.contains("is your own (user 7)"),
            "{claims}: {}",
            ran.stderr
        );
    }
    // The customer is recognized in every form of the token.
    let own = fixture.signed(&json!({"sub": "42", "exp": exp}));
    let ran = fixture.act_with(1, &own, &args);
    assert!(ran.stderr.contains("is your own"), "{}", ran.stderr);
    assert_eq!(fixture.refunded_amount(1).await, "0");
    let bob = fixture.signed(&json!({"sub": "8", "exp": exp}));
    fixture.act_with(0, &bob, &args);
}

#[tokio::test]
async fn p5_confirmations_at_once_count_once() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    fixture.request(0, ADA, id);
    let (name, request) = (id.to_string(), fixture.last_request().await);
    let args = ["confirm-mark-paid", &name, "--request", &request];
    let codes = concurrently(&fixture, [BOB, "9", "10", "11"], &args);
    assert_eq!(codes, [0, 1, 1, 1]);
    assert_eq!(fixture.refunded_amount(1).await, "49.9");
    assert_eq!(fixture.records().await.len(), 2);
    fixture.audited(id).await;
}

/// The consumer locks the order, the return, its attempts. A confirmation that locked the return first could deadlock.
#[tokio::test]
async fn p5_a_late_success_and_a_confirmation_count_once_and_do_not_deadlock() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    fixture.request(0, ADA, id);
    let mut settlement = fixture.db.pool.begin().await.expect("begin");
    settlement
        .execute("SELECT 1 FROM orders WHERE id = 1 FOR UPDATE")
        .await
        .expect("lock");
    let (name, request) = (id.to_string(), fixture.last_request().await);
    let args = ["confirm-mark-paid", &name, "--request", &request];
    let confirmation = fixture.spawn(BOB, &args);
    await_lock_waiter(&fixture.db).await;
    settlement
        .execute("SELECT 1 FROM returns FOR UPDATE NOWAIT")
        .await
        .expect("the confirmation waits for the order and holds nothing else");
    settlement
        .execute("SELECT 1 FROM refunds FOR UPDATE NOWAIT")
        .await
        .expect("nor an attempt");
    settlement
        .execute("UPDATE refunds SET state = 'succeeded', gateway_ref = 'late'")
        .await
        .expect("settle");
    let trace = TraceContext::new_root();
    advance(&mut settlement, id, &[Action::LateSuccess], &trace).await;
    settlement.commit().await.expect("commit");
    let ran = ended(confirmation);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("it is refunded"), "{}", ran.stderr);
    assert_eq!(fixture.refunded_amount(1).await, "49.9");
    assert_eq!(
        fixture.attempts(id).await[0].gateway_ref.as_deref(),
        Some("late")
    );
    fixture.audited(id).await;
}

#[tokio::test]
async fn a_transaction_that_loses_a_lock_conflict_runs_again() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    fixture.request(0, ADA, id);
    let mut other = fixture.db.pool.begin().await.expect("begin");
    other
        .execute("SELECT 1 FROM refunds FOR UPDATE")
        .await
        .expect("lock");
    let (name, request) = (id.to_string(), fixture.last_request().await);
    let args = ["confirm-mark-paid", &name, "--request", &request];
    let confirmation = fixture.spawn(BOB, &args);
    // Longer than a lock wait of 5 s: the first run of the transaction is lost.
    for _ in 0..2 {
        await_lock_waiter(&fixture.db).await;
        let first = waiting_transaction(&fixture).await;
        while waiting_transaction(&fixture).await == first {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    other.rollback().await.expect("rollback");
    let ran = ended(confirmation);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(fixture.refunded_amount(1).await, "49.9");
}

/// The transaction that waits for a lock, if one does.
async fn waiting_transaction(fixture: &Fixture) -> Option<u64> {
    sqlx::query_scalar(
        "SELECT CAST(engine_transaction_id AS UNSIGNED) FROM performance_schema.data_locks \
         WHERE object_schema = DATABASE() AND lock_status = 'WAITING' LIMIT 1",
    )
    .fetch_optional(&fixture.db.pool)
    .await
    .expect("data_locks")
}
