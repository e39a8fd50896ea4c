//! `GET /returns/{id}/events` and `GET /events`: pages, filters, and the cost of a page.

use reqwest::Url;
use serde_json::{Value, json};
use shared::domain::actor::{Actor, ActorType};
use sqlx::AssertSqlSafe;
use time::Duration;

use crate::audit_rows::{LONG_AGO, append};
use crate::harness::{Answer, Api, CUSTOMER};
use crate::page_cost::{reads_of_page, rows_read};
use crate::tokens::Format;

pub(crate) fn auditor(api: &Api) -> String {
    api.token_of(Format::Jwt, 8, "auditor")
}

/// An api with `count` returns of one event each.
pub(crate) async fn api_with_returns(count: i64, flags: &[&str]) -> (Api, Vec<i64>) {
    let api = Api::start_with(flags).await;
    api.db.seed_orders(1, count, CUSTOMER).await;
    let mut ids = Vec::new();
    for order in 1..=count {
        ids.push(api.file(order).await.return_id());
    }
    (api, ids)
}

/// Events of several kinds, four at each instant.
async fn append_mixed(api: &Api, id: i64, count: i32) {
    append(&api.db, id, count, |n, mut row| {
        row.created_at = LONG_AGO + Duration::milliseconds(i64::from(n / 4));
        if n % 5 == 0 {
            row.event_type = "return.approved".to_owned();
            row.actor = Actor {
                kind: ActorType::Admin,
                id: (n % 3).to_string(),
            };
        }
        row
    })
    .await;
}

/// `RETURN.SEQ` of every item, by following the links. Checks that links and cursors agree.
async fn all_pages(api: &Api, path: &str) -> Vec<String> {
    let token = auditor(api);
    let mut url: Url = api.url(path).parse().expect("a URL");
    let mut items = Vec::new();
    loop {
        let request = api.http.get(url.clone()).bearer_auth(&token);
        let page = Answer::read(request.send().await.expect("a response")).await;
        assert_eq!(page.status, 200, "{}", String::from_utf8_lossy(&page.body));
        let body = page.json();
        let of_page = body["items"].as_array().expect("items");
        items.extend(
            of_page
                .iter()
                .map(|item| format!("{}.{}", item["return_id"], item["seq"])),
        );
        let Some(link) = page.header("link") else {
            assert_eq!(body["next_cursor"], Value::Null);
            return items;
        };
        let target = link
            .strip_prefix('<')
            .and_then(|link| link.strip_suffix(">; rel=\"next\""));
        url = url.join(target.expect("a link")).expect("a URL");
        let cursor = url.query_pairs().find(|(name, _)| name == "cursor");
        assert_eq!(
            cursor.expect("a cursor").1,
            body["next_cursor"].as_str().expect("text")
        );
    }
}

/// The same list, read from the table.
async fn rows(api: &Api, condition: &str) -> Vec<String> {
    let sql = format!(
        "SELECT CONCAT(e.return_id, '.', e.seq) FROM return_events e JOIN returns r ON r.id = e.return_id \
         WHERE {condition} ORDER BY e.created_at DESC, e.id DESC"
    );
    let query = sqlx::query_scalar(AssertSqlSafe(sql));
    query.fetch_all(&api.db.pool).await.expect("rows")
}

/// Each filter, and its condition in SQL.
const FILTERS: [(&str, &str); 8] = [
    ("", "TRUE"),
    ("return_id=2", "e.return_id = 2"),
    ("order_id=2", "r.order_id = 2"),
    ("actor_type=admin", "e.actor_type = 'admin'"),
    ("actor_id=2", "e.actor_id = '2'"),
    (
        "event_type=refund.requested",
        "e.event_type = 'refund.requested'",
    ),
    (
        "created_from=2026-01-02T03:04:05.680901Z",
        "e.created_at >= '2026-01-02 03:04:05.680901'",
    ),
    (
        "created_before=2026-01-02T04:04:05.682901%2B01:00",
        "e.created_at < '2026-01-02 03:04:05.682901'",
    ),
];

#[tokio::test]
async fn pages_contain_every_event_once_under_each_filter_newest_first() {
    let (api, ids) = api_with_returns(3, &[]).await;
    assert_eq!(ids, [1, 2, 3]);
    for id in ids {
        append_mixed(&api, id, 40).await;
    }
    for (at, (one, is_one)) in FILTERS.iter().enumerate() {
        for (two, is_two) in &FILTERS[at..] {
            let expected = rows(&api, &format!("{is_one} AND {is_two}")).await;
            let filter = if one == two { "" } else { two };
            // Page sizes: three within one instant, and all events in one page.
            for limit in [3, 200] {
                let path = format!("/events?{one}&{filter}&limit={limit}");
                assert_eq!(all_pages(&api, &path).await, expected, "{path}");
            }
        }
    }
    assert_eq!(rows(&api, "TRUE").await.len(), 123);
    api.stop().await;
}

#[tokio::test]
async fn the_events_of_a_return_are_in_the_order_of_their_chain() {
    let (api, ids) = api_with_returns(2, &[]).await;
    append_mixed(&api, ids[0], 12).await;
    let path = format!("/returns/{}/events", ids[0]);
    let expected: Vec<String> = (1..=13).map(|seq| format!("{}.{seq}", ids[0])).collect();
    for limit in [1, 5, 13, 200] {
        let pages = all_pages(&api, &format!("{path}?limit={limit}")).await;
        assert_eq!(pages, expected, "{limit}");
    }
    let unknown = api.get("/returns/999999/events", &auditor(&api)).await;
    unknown.problem(404, "not-found");
    api.get("/returns/x/events", &auditor(&api))
        .await
        .problem(404, "not-found");
    api.stop().await;
}

#[tokio::test]
async fn an_event_is_shown_as_it_was_hashed() {
    let (api, ids) = api_with_returns(1, &[]).await;
    let answer = api.get("/events", &auditor(&api)).await;
    let item = &answer.json()["items"][0];
    let row: (String, String, String, String, String) = sqlx::query_as(
        "SELECT BIN_TO_UUID(event_id), event_data, request_id, trace_id, hash FROM return_events",
    )
    .fetch_one(&api.db.pool)
    .await
    .expect("the row");
    let time = item["created_at"].as_str().expect("a time");
    assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
    assert_eq!(
        item,
        &json!({
            "return_id": ids[0], "seq": 1, "event_id": row.0, "event_type": "return.initiated",
            "actor": {"type": "customer", "id": "42"}, "request_id": row.2, "trace_id": row.3, "created_at": time,
            "event_data": row.1, "prev_hash": "0".repeat(64), "hash": row.4
        })
    );
    api.stop().await;
}

#[tokio::test]
async fn every_wrong_parameter_is_named_to_authorized_callers() {
    let (api, _) = api_with_returns(1, &[]).await;
    let problem = api
        .get("/events?actor_type=robot&limit=0", &auditor(&api))
        .await
        .problem(422, "invalid-fields");
    assert_eq!(problem["errors"][0]["parameter"], "actor_type");
    assert_eq!(problem["errors"][1]["parameter"], "limit");
    // A misspelled type would be an empty page, which says that nothing has happened.
    let problem = api
        .get("/events?event_type=return.refunded", &auditor(&api))
        .await
        .problem(422, "invalid-fields");
    assert_eq!(problem["errors"][0]["parameter"], "event_type");
    for path in ["/events?offset=3", "/returns/1/events?event_type=x"] {
        api.get(path, &auditor(&api))
            .await
            .problem(400, "bad-request");
    }
    for path in ["/events?limit=0", "/returns/1/events?limit=0"] {
        api.get(path, &api.customer_token())
            .await
            .problem(403, "forbidden");
    }
    api.stop().await;
}

const STATEMENT: &str = "list_events";
/// Rows that a page of 20 may read: its own, one more, the rest of an instant, and the search for the first.
const FEW: u64 = 40;

#[tokio::test]
async fn a_page_costs_the_same_in_a_large_audit_trail_with_every_filter() {
    // One connection, so its counters are those of the requests.
    let (api, ids) = api_with_returns(3, &["--database-max-connections", "1"]).await;
    append_mixed(&api, ids[1], 10).await;
    // With the statistics of a small table, the optimizer by itself would scan the large one.
    sqlx::query("ANALYZE TABLE return_events, returns")
        .fetch_all(&api.db.pool)
        .await
        .expect("statistics");
    append_mixed(&api, ids[2], 8_000).await;
    for (filter, _) in FILTERS {
        let first = format!("/events?{filter}&limit=20");
        let few = reads_of_page(&api, STATEMENT, &first, &auditor(&api)).await;
        // Somewhere in the middle.
        let micros = LONG_AGO.unix_timestamp_nanos() / 1_000 + 1_000_000;
        let deep = format!("{first}&cursor={micros}-4000");
        for (path, reads) in [
            (&first, few),
            (
                &deep,
                reads_of_page(&api, STATEMENT, &deep, &auditor(&api)).await,
            ),
        ] {
            assert!(rows_read(&reads) <= FEW, "{path}: {reads:?}");
            // The rows of one return or order are sorted: here eleven.
            let few = ["return_id=2", "order_id=2"].contains(&filter);
            let sorted = if few { 11 } else { 0 };
            assert!(reads["Sort_rows"] <= sorted, "{path}: {reads:?}");
        }
    }
    api.stop().await;
}
