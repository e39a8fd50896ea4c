//! P7: a trail that lacks events is never shown as if it were whole.

use serde_json::json;
use shared::test_support::TestDb;
use sqlx::{AssertSqlSafe, Executor};

use crate::events::{api_with_returns, auditor};
use crate::harness::{Answer, Api, count};

async fn execute(db: &TestDb, sql: &str) {
    let done = db.pool.execute(AssertSqlSafe(sql.to_owned())).await;
    done.expect(sql);
}

async fn export(api: &Api, path: &str) -> Answer {
    let request = api.http.get(api.url(path)).bearer_auth(auditor(api));
    let request = request.header("accept", "application/x-ndjson");
    Answer::read(request.send().await.expect("a response")).await
}

/// TRUNCATE fires no trigger, so nothing in the database refuses it.
#[tokio::test]
async fn p7_without_its_events_a_return_has_a_problem_and_no_empty_trail() {
    let (api, ids) = api_with_returns(2, &[]).await;
    let id = ids[0];
    execute(&api.db, "TRUNCATE return_events").await;
    for path in [
        format!("/returns/{id}/events"),
        format!("/events?return_id={id}"),
        "/events?order_id=1".to_owned(),
        "/events".to_owned(),
    ] {
        let page = api.get(&path, &auditor(&api)).await;
        let problem = page.problem(500, "audit-trail-broken");
        let detail = format!("return {id} has 0 of its 1 events");
        assert_eq!(problem["detail"], detail, "{path}");
        export(&api, &path).await.problem(500, "audit-trail-broken");
    }
    assert!((api.metric("audit_trail_broken_total").await - 8.0).abs() < 0.1);

    // What follows the lost rows could not be chained to them.
    let decision = api.http.post(api.url(&format!("/returns/{id}/cancel")));
    let decision = decision
        .bearer_auth(api.customer_token())
        .header("if-match", "\"1\"")
        .json(&json!({}));
    let refused = Answer::read(decision.send().await.expect("a response")).await;
    refused.problem(500, "internal");
    let untouched = "SELECT COUNT(*) FROM returns WHERE version = 1 AND status = 'initiated'";
    assert_eq!(count(&api.db, untouched).await, 2);
    assert_eq!(
        count(&api.db, "SELECT COUNT(*) FROM return_events").await,
        0
    );
    api.drain().await;
}

#[tokio::test]
async fn p7_one_missing_event_is_named_and_other_returns_are_shown() {
    let (api, ids) = api_with_returns(2, &[]).await;
    let (broken, whole) = (ids[0], ids[1]);
    execute(&api.db, "DROP TRIGGER return_events_no_delete").await;
    execute(
        &api.db,
        &format!("DELETE FROM return_events WHERE return_id = {broken}"),
    )
    .await;
    let page = api
        .get(&format!("/returns/{broken}/events"), &auditor(&api))
        .await;
    page.problem(500, "audit-trail-broken");
    let page = api
        .get(&format!("/returns/{whole}/events"), &auditor(&api))
        .await;
    assert_eq!(page.json()["items"][0]["return_id"], whole);
    let all = api.get("/events", &auditor(&api)).await;
    assert_eq!(all.json()["items"].as_array().map(Vec::len), Some(1));
    api.drain().await;
}
