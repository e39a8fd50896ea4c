//! `POST /returns/{id}/cancel`, `/approve`, `/reject` and `/retry-refund`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::domain::status::Action;
use shared::test_support::TestDb;
use shared::test_support::mysql_proxy::{Cut, MysqlProxy};
use sqlx::AssertSqlSafe;

use crate::harness::{Answer, Api, CUSTOMER, count, with_permit};
use crate::moves::change;
use crate::tokens::Format;

const VERBS: [&str; 4] = ["cancel", "approve", "reject", "retry-refund"];

/// An api with one return of the usual customer.
async fn with_return() -> (Api, i64) {
    let api = Api::start().await;
    api.db.seed_orders(1, 3, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    (api, id)
}

/// `if_match` is sent as it is; a body is sent only if there is one.
async fn decide(
    api: &Api,
    token: &str,
    path: &str,
    if_match: Option<&str>,
    body: Option<Value>,
) -> Answer {
    let mut request = api.http.post(api.url(path)).bearer_auth(token);
    if let Some(tag) = if_match {
        request = request.header("if-match", tag);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    Answer::read(request.send().await.expect("a response")).await
}

async fn text(api: &Api, sql: String) -> String {
    sqlx::query_scalar(AssertSqlSafe(sql.clone()))
        .fetch_one(&api.db.pool)
        .await
        .expect(&sql)
}

/// A return whose first attempt was declined.
async fn failed(api: &Api, id: i64, state: &str) {
    use Action::{Approve, Claim, Decline};
    change(&api.db, id, &[Approve, Claim, Decline]).await;
    sqlx::query(
        "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, checks, \
         created_at, updated_at) VALUES (?, 1, CONCAT('first-', ?), 49.90, 'EUR', ?, UTC_TIMESTAMP(6), 0, UTC_TIMESTAMP(6), \
         UTC_TIMESTAMP(6))",
    )
    .bind(id)
    .bind(id)
    .bind(state)
    .execute(&api.db.pool)
    .await
    .expect("insert");
}

#[tokio::test]
async fn an_owner_cancels_and_the_order_is_free_again() {
    let (api, id) = with_return().await;
    let path = format!("/returns/{id}/cancel");
    let body = json!({"reason_code": "kept_it"});
    let answer = decide(
        &api,
        &api.customer_token(),
        &path,
        Some("\"1\""),
        Some(body),
    )
    .await;
    assert_eq!((answer.status, answer.header("etag")), (200, Some("\"2\"")));
    let shown = answer.json();
    assert_eq!(
        (&shown["status"], &shown["version"]),
        (&json!("cancelled"), &json!(2))
    );
    let read = api
        .get(&format!("/returns/{id}"), &api.customer_token())
        .await;
    assert_eq!(read.json(), shown, "what was answered is what stands");
    let event = text(
        &api,
        format!(
            "SELECT CONCAT_WS(' ', e.event_type, e.actor_type, e.actor_id, e.event_data->>'$.from', e.event_data->>'$.to', \
             e.event_data->>'$.reason_code', e.request_id, o.topic) FROM return_events e \
             JOIN outbox o ON o.event_id = e.event_id AND o.seq = e.seq WHERE e.return_id = {id} AND e.seq = 2"
        ),
    )
    .await;
    let request_id = answer.header("x-request-id").expect("an id");
    assert_eq!(
        event,
        format!(
            "return.cancelled customer 42 initiated cancelled kept_it {request_id} order.returns.status"
        )
    );
    assert_ne!(api.file(1).await.return_id(), id);
    api.stop().await;
}

#[tokio::test]
async fn an_admin_approves_and_rejects() {
    let (api, approved) = with_return().await;
    let rejected = api.file(2).await.return_id();
    let admin = api.admin_token();
    for (id, verb, status) in [
        (approved, "approve", "approved"),
        (rejected, "reject", "rejected"),
    ] {
        let path = format!("/returns/{id}/{verb}");
        let answer = decide(&api, &admin, &path, Some("\"1\""), None).await;
        assert_eq!(
            (answer.status, &answer.json()["status"]),
            (200, &json!(status))
        );
    }
    let actor =
        "SELECT GROUP_CONCAT(DISTINCT actor_type, ':', actor_id) FROM return_events WHERE seq = 2";
    assert_eq!(text(&api, actor.to_owned()).await, "admin:7");
    api.stop().await;
}

#[tokio::test]
async fn p5_a_failed_refund_is_retried_under_the_next_key() {
    let (api, id) = with_return().await;
    failed(&api, id, "declined").await;
    let path = format!("/returns/{id}/retry-refund");
    let answer = decide(&api, &api.admin_token(), &path, Some("\"4\""), None).await;
    assert_eq!(
        (answer.status, &answer.json()["status"]),
        (200, &json!("refund_pending"))
    );
    let attempt = text(
        &api,
        format!(
            "SELECT CONCAT_WS(' ', f.attempt, f.state, f.owner IS NULL, f.next_check_at <= UTC_TIMESTAMP(6), f.amount, \
             f.currency, f.idempotency_key = CONCAT('refund-', BIN_TO_UUID(e.event_id), '-2')) FROM refunds f \
             JOIN return_events e ON e.return_id = f.return_id AND e.seq = 1 WHERE f.return_id = {id} AND f.attempt = 2"
        ),
    )
    .await;
    assert_eq!(attempt, "2 claimed 1 1 49.9000 EUR 1");
    let detail = format!(
        "SELECT event_data->>'$.attempt' FROM return_events WHERE return_id = {id} AND seq = 5"
    );
    assert_eq!(text(&api, detail).await, "2");
    // The attempt is in progress: a second click changes nothing.
    let again = decide(&api, &api.admin_token(), &path, Some("*"), None).await;
    again.problem(409, "invalid-transition");
    assert_eq!(count(&api.db, "SELECT COUNT(*) FROM refunds").await, 2);
    api.stop().await;
}

#[tokio::test]
async fn p5_no_retry_while_an_earlier_attempt_may_pay_or_the_order_has_too_little() {
    let (api, id) = with_return().await;
    let path = format!("/returns/{id}/retry-refund");
    failed(&api, id, "unknown").await;
    let answer = decide(&api, &api.admin_token(), &path, Some("*"), None).await;
    let problem = answer.problem(409, "invalid-transition");
    assert_eq!(
        problem["detail"],
        "attempt 1 is unknown, so another one could pay twice"
    );
    for sql in [
        "UPDATE refunds SET state = 'declined'",
        "UPDATE orders SET refunded_amount = 10 WHERE id = 1",
    ] {
        sqlx::query(sql).execute(&api.db.pool).await.expect(sql);
    }
    let answer = decide(&api, &api.admin_token(), &path, Some("*"), None).await;
    let problem = answer.problem(409, "invalid-transition");
    assert_eq!(
        (&problem["current_status"], &problem["detail"]),
        (
            &json!("refund_failed"),
            &json!("the order's remaining amount does not cover the refund")
        )
    );
    assert_eq!(count(&api.db, "SELECT COUNT(*) FROM refunds").await, 1);
    assert_eq!(
        count(&api.db, "SELECT MAX(seq) FROM return_events").await,
        4
    );
    api.stop().await;
}

#[tokio::test]
async fn the_checks_have_a_fixed_order() {
    let (api, id) = with_return().await;
    let (stranger, admin) = (api.token_of(Format::Jwt, 43, "customer"), api.admin_token());
    let bad = || Some(json!({"note": "x"}));
    for verb in VERBS {
        let own = format!("/returns/{id}/{verb}");
        let none = format!("/returns/999999/{verb}");
        decide(&api, &admin, &none, None, bad())
            .await
            .problem(404, "not-found");
        decide(&api, &admin, &own, None, bad())
            .await
            .problem(428, "precondition-required");
        decide(&api, &admin, &own, Some("1"), bad())
            .await
            .problem(400, "bad-request");
        decide(&api, &admin, &own, Some("\"9\""), bad())
            .await
            .problem(422, "invalid-fields");
        for stale in ["\"9\"", "W/\"1\"", "\"0\", \"2\""] {
            decide(&api, &admin, &own, Some(stale), None)
                .await
                .problem(412, "precondition-failed");
        }
    }
    let cancel = format!("/returns/{id}/cancel");
    decide(&api, &stranger, &cancel, None, None)
        .await
        .problem(404, "not-found");
    assert_eq!(
        count(&api.db, "SELECT COUNT(*) FROM return_events").await,
        1
    );
    api.stop().await;
}

/// Every pair of status and verb, as in the graph in docs/STATES.md.
#[tokio::test]
async fn p8_a_move_that_is_not_in_the_graph_is_a_409() {
    use Action::{Approve, Cancel, Claim, Confirm, Decline, Reject};
    let api = Api::start().await;
    api.db.seed_orders(1, 40, CUSTOMER).await;
    let admin = api.admin_token();
    let allowed = BTreeMap::from([
        ("initiated", &["cancel", "approve", "reject"][..]),
        ("approved", &["cancel", "reject"]),
        ("refund_failed", &["retry-refund"]),
    ]);
    let states: [(&str, &[Action]); 7] = [
        ("initiated", &[]),
        ("approved", &[Approve]),
        ("rejected", &[Reject]),
        ("cancelled", &[Cancel]),
        ("refund_pending", &[Approve, Claim]),
        ("refunded", &[Approve, Claim, Confirm]),
        ("refund_failed", &[Approve, Claim, Decline]),
    ];
    let mut orders = 1..;
    for (state, actions) in states {
        for verb in VERBS {
            let id = api.file(orders.next().expect("endless")).await.return_id();
            if state == "refund_failed" {
                failed(&api, id, "declined").await;
            } else if !actions.is_empty() {
                change(&api.db, id, actions).await;
            }
            let path = format!("/returns/{id}/{verb}");
            let answer = decide(&api, &admin, &path, Some("*"), None).await;
            if allowed
                .get(state)
                .is_some_and(|verbs| verbs.contains(&verb))
            {
                assert_eq!(answer.status, 200, "{verb} while {state}");
            } else {
                let problem = answer.problem(409, "invalid-transition");
                assert_eq!(problem["current_status"], state, "{verb}");
            }
        }
    }
    api.stop().await;
}

#[tokio::test]
async fn only_one_of_several_decisions_about_a_version_is_applied() {
    let (api, id) = with_return().await;
    let admin = api.admin_token();
    let decisions = (0..24).map(|n| {
        let verb = ["cancel", "approve", "reject"][n % 3];
        let path = format!("/returns/{id}/{verb}");
        let (api, admin) = (&api, &admin);
        async move {
            let decided = with_permit(|| decide(api, admin, &path, Some("\"1\""), None));
            decided.await.status
        }
    });
    let mut statuses = futures_util::future::join_all(decisions).await;
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!(
        statuses[1..].iter().all(|status| *status == 412),
        "{statuses:?}"
    );
    assert_eq!(
        count(&api.db, "SELECT COUNT(*) FROM return_events").await,
        2
    );
    api.stop().await;
}

#[tokio::test]
async fn admins_cannot_decide_about_their_own_returns() {
    let (api, id) = with_return().await;
    failed(&api, id, "declined").await;
    let own = api.token_of(Format::Jwt, CUSTOMER.0, "admin");
    for verb in ["approve", "reject", "retry-refund"] {
        let path = format!("/returns/{id}/{verb}");
        decide(&api, &own, &path, Some("*"), None)
            .await
            .problem(403, "forbidden");
    }
    assert_eq!(
        count(&api.db, "SELECT MAX(seq) FROM return_events").await,
        4
    );
    api.stop().await;
}

#[tokio::test]
async fn a_lost_commit_is_looked_up() {
    for (cut, status) in [(Cut::BeforeAnswer, 200), (Cut::BeforeServer, 503)] {
        let db = TestDb::create().await;
        let (proxy, url) = MysqlProxy::before(db.url()).await;
        let api = Api::start_on(db, &url, &[]).await;
        api.db.seed_orders(1, 1, CUSTOMER).await;
        let id = api.file(1).await.return_id();
        let path = format!("/returns/{id}/cancel");
        proxy.arm("COMMIT", cut);
        let answer = decide(&api, &api.customer_token(), &path, Some("\"1\""), None).await;
        assert!(proxy.sprung(), "{cut:?}");
        let again = decide(&api, &api.customer_token(), &path, Some("\"1\""), None).await;
        assert_eq!(answer.status, status, "{cut:?}");
        if status == 503 {
            answer.problem(503, "outcome-unknown");
            assert_eq!(again.status, 200, "nothing was half written");
        } else {
            again.problem(412, "precondition-failed");
        }
        assert_eq!(
            count(&api.db, "SELECT COUNT(*) FROM return_events").await,
            2
        );
        api.stop().await;
    }
}
