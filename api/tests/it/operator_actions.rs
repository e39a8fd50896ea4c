//! `GET /operator-actions`: what operators did with `returnsctl`, and why, for auditors and admins.

use serde_json::{Value, json};
use time::macros::datetime;

use crate::events::auditor;
use crate::harness::Api;
use crate::page_cost::{reads_of_page, rows_read};
use crate::tokens::Format;

async fn record(api: &Api, from: i64, count: i64) {
    sqlx::query(
        "INSERT INTO operator_actions (actor_type, actor_id, verb, event_id, return_id, reason, created_at, shard, \
         db_account, details) WITH RECURSIVE n (i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) \
         SELECT IF(i % 2, 'operator', 'admin'), IF(i % 100 = 3, 'j.doe', i % 5), \
         IF(i % 100 = 5, 'token.revoke', 'refund.retry'), IF(i = 1, UNHEX('019AB000000070008000000000000001'), NULL), \
         IF(i % 2, NULL, i), CONCAT('INC-', i, ': größer'), '2026-01-02' + INTERVAL i SECOND, IF(i = 1, 7, NULL), \
         'ops@10.0.0.1', JSON_OBJECT('attempt', i) FROM n",
    )
    .bind(from)
    .bind(from + count)
    .execute(&api.db.pool)
    .await
    .expect("insert");
}

async fn all_pages(api: &Api, query: &str) -> Vec<i64> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/operator-actions?{query}{cursor}");
        let page = api.get(&path, &auditor(api)).await;
        assert_eq!(page.status, 200, "{}", String::from_utf8_lossy(&page.body));
        let page = page.json();
        let items = page["items"].as_array().expect("items").iter();
        ids.extend(items.map(|item| item["id"].as_i64().expect("an id")));
        match &page["next_cursor"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => return ids,
        }
    }
}

#[tokio::test]
async fn auditors_and_admins_read_what_was_done_and_why() {
    let api = Api::start().await;
    record(&api, 1, 12).await;
    for format in Format::ALL {
        for (user, role) in [(8, "auditor"), (7, "admin")] {
            let token = api.token_of(format, user, role);
            let page = api.get("/operator-actions?limit=1", &token).await;
            assert_eq!(page.status, 200, "{role}");
        }
        let customer = api.token_of(format, 42, "customer");
        let refused = api.get("/operator-actions", &customer).await;
        refused.problem(403, "forbidden");
    }
    let page = api.get("/operator-actions", &auditor(&api)).await.json();
    let items = page["items"].as_array().expect("items");
    assert_eq!(
        items[11],
        json!({
            "id": 1, "actor": {"type": "operator", "id": "1"}, "verb": "refund.retry",
            "reason": "INC-1: größer", "created_at": "2026-01-02T00:00:01.000000Z", "db_account": "ops@10.0.0.1",
            "event_id": "019ab000-0000-7000-8000-000000000001", "return_id": null, "shard": 7,
            "details": {"attempt": 1}
        })
    );
    assert_eq!(items[10]["return_id"], 2);
    for limit in [1, 5, 200] {
        let ids = all_pages(&api, &format!("limit={limit}")).await;
        assert_eq!(ids, (1..=12).rev().collect::<Vec<i64>>(), "{limit}");
    }
    for (query, ids) in [
        ("return_id=4", &[4][..]),
        ("actor_id=j.doe", &[3]),
        ("verb=token.revoke", &[5]),
        ("actor_type=admin&limit=2", &[12, 10, 8, 6, 4, 2]),
        ("created_from=2026-01-02T00:00:11Z", &[12, 11]),
        ("created_before=2026-01-02T00:00:03Z&limit=1", &[2, 1]),
        ("actor_id=j.doe&return_id=4", &[]),
    ] {
        assert_eq!(all_pages(&api, query).await, ids, "{query}");
    }
    let wrong = "/operator-actions?return_id=x&actor_type=robot&verb=&cursor=-1&limit=0";
    let problem = api
        .get(wrong, &auditor(&api))
        .await
        .problem(422, "invalid-fields");
    let names = problem["errors"].as_array().expect("errors").iter();
    let names: Vec<&str> = names
        .filter_map(|error| error["parameter"].as_str())
        .collect();
    assert_eq!(
        names,
        ["return_id", "actor_type", "verb", "cursor", "limit"]
    );
    api.stop().await;
}

#[tokio::test]
async fn a_page_costs_the_same_among_many_actions_with_every_filter() {
    // One connection, so its counters are those of the requests.
    let api = Api::start_with(&["--database-max-connections", "1"]).await;
    record(&api, 1, 10).await;
    // With the statistics of a small table, the optimizer by itself would scan the large one.
    sqlx::query("ANALYZE TABLE operator_actions")
        .fetch_all(&api.db.pool)
        .await
        .expect("statistics");
    for chunk in 0..10 {
        record(&api, 11 + chunk * 800, 800).await;
    }
    for filter in [
        "",
        "return_id=4000",
        "actor_id=j.doe",
        "actor_id=2",
        "verb=token.revoke",
        "verb=refund.retry",
        "created_from=2026-01-02T00:00:00Z&created_before=2026-01-02T01:00:00Z",
    ] {
        let first = format!("/operator-actions?{filter}&limit=20").replace("?&", "?");
        let micros = datetime!(2026-01-02 01:06:40 UTC).unix_timestamp_nanos() / 1_000;
        let deep = format!("{first}&cursor={micros}-4000");
        for path in [first, deep] {
            let reads = reads_of_page(&api, "list_operator_actions", &path, &auditor(&api)).await;
            assert!(rows_read(&reads) <= 45, "{path}: {reads:?}");
            assert!(reads["Sort_rows"] <= 1, "{path}: {reads:?}");
        }
    }
    api.stop().await;
}
