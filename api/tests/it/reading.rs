//! `GET /returns/{id}` and keyset pages.

use serde_json::{Value, json};
use time::macros::datetime;

use crate::harness::{Api, CUSTOMER};
use crate::page_cost::{reads_of_page, rows_read};

#[tokio::test]
async fn a_return_is_shown_with_its_etag() {
    let api = Api::start().await;
    api.db.seed_orders(5, 1, CUSTOMER).await;
    let id = api.file(5).await.return_id();
    let path = format!("/returns/{id}");
    let shown = api.get(&path, &api.customer_token()).await;
    assert_eq!((shown.status, shown.header("etag")), (200, Some("\"1\"")));
    let mut body = shown.json();
    for time in ["created_at", "updated_at"] {
        let text = body[time].take();
        let text = text.as_str().expect("a time");
        assert!(text.len() == 27 && text.ends_with('Z'), "{text}");
    }
    assert_eq!(
        body,
        json!({
            "return_id": id, "order_id": 5, "customer_id": 42, "status": "initiated", "reason": "does not fit",
            "review_required": false, "refund": {"amount": "49.90", "currency": "EUR"}, "version": 1,
            "created_at": null, "updated_at": null
        })
    );
    for (known, status) in [
        (r#""1""#, 304),
        (r#"W/"1""#, 304),
        (r#""0", "1","#, 304),
        ("*", 304),
        (r#""2""#, 200),
        // An unreadable condition is ignored.
        ("1", 200),
    ] {
        let request = api
            .http
            .get(api.url(&path))
            .bearer_auth(api.customer_token())
            .header("if-none-match", known);
        let answer = request.send().await.expect("a response");
        assert_eq!(answer.status(), status, "{known}");
        assert_eq!(answer.headers()["etag"], r#""1""#, "{known}");
    }
    api.stop().await;
}

async fn all_pages(api: &Api, query: &str) -> Vec<i64> {
    let token = api.admin_token();
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("/returns?{query}{cursor}"), &token).await;
        assert_eq!(page.status, 200, "{}", String::from_utf8_lossy(&page.body));
        let link = page.header("link").map(str::to_owned);
        let page = page.json();
        let items = page["items"].as_array().expect("items");
        ids.extend(
            items
                .iter()
                .map(|item| item["return_id"].as_i64().expect("an id")),
        );
        match &page["next_cursor"] {
            Value::String(next) => {
                cursor = format!("&cursor={next}");
                let link = link.expect("a link to the next page");
                assert!(
                    link.ends_with(&format!("{cursor}>; rel=\"next\"")),
                    "{link}"
                );
            }
            _ => {
                assert_eq!(link, None);
                return ids;
            }
        }
    }
}

#[tokio::test]
async fn pages_contain_every_return_once_newest_first() {
    let api = Api::start().await;
    api.db.seed_orders(1, 25, CUSTOMER).await;
    let mut filed = Vec::new();
    for order in 1..=25 {
        filed.push(api.file(order).await.return_id());
    }
    // Rows of one instant are ordered by id.
    sqlx::query(
        "UPDATE returns SET created_at = '2026-01-02 03:04:05.678901' WHERE order_id <= 10",
    )
    .execute(&api.db.pool)
    .await
    .expect("update");
    filed.reverse();
    for limit in [1, 7, 25, 200] {
        assert_eq!(
            all_pages(&api, &format!("limit={limit}")).await,
            filed,
            "limit {limit}"
        );
    }
    assert_eq!(all_pages(&api, "order_id=3").await.len(), 1);
    assert_eq!(all_pages(&api, "customer_id=42&limit=10").await.len(), 25);
    assert_eq!(all_pages(&api, "customer_id=43").await.len(), 0);
    assert_eq!(all_pages(&api, "status=refunded").await.len(), 0);
    assert_eq!(all_pages(&api, "status=initiated&limit=4").await, filed);
    let old = "created_from=2026-01-02T03:04:05.678901Z&created_before=2026-01-02T03:04:05.678902Z&limit=3";
    assert_eq!(all_pages(&api, old).await, filed[15..]);
    let ever = "created_from=0000-01-01T00:00:00Z&created_before=9999-12-31T23:59:59-23:59&limit=9";
    assert_eq!(all_pages(&api, ever).await, filed, "no column holds these");
    let before = "created_before=0999-12-31T23:59:59Z";
    assert_eq!(all_pages(&api, before).await.len(), 0);
    api.stop().await;
}

/// Returns without a filing: a tenth of one customer, a few with one status, all of one day, each with another microsecond.
async fn seed_returns(api: &Api, from: i64, count: i64) {
    api.db.seed_orders(from, count, CUSTOMER).await;
    sqlx::query(
        "INSERT INTO returns (id, order_id, customer_id, reason, status, version, policy_version, refund_amount, currency, \
         created_at, updated_at) SELECT id, id, IF(id % 10 = 0, 7, 1000 + id), 'bulk', \
         IF(id % 50 = 0, 'rejected', 'refunded'), 1, 'test', 1, 'EUR', '2026-01-02' + INTERVAL id MICROSECOND, \
         '2026-01-02' FROM orders WHERE id >= ?",
    )
    .bind(from)
    .execute(&api.db.pool)
    .await
    .expect("insert");
}

#[tokio::test]
async fn a_page_costs_the_same_among_many_returns_with_every_filter() {
    // One connection, so its counters are those of the requests.
    let api = Api::start_with(&["--database-max-connections", "1"]).await;
    seed_returns(&api, 1, 10).await;
    // With the statistics of a small table, the optimizer by itself would scan the large one.
    sqlx::query("ANALYZE TABLE returns")
        .fetch_all(&api.db.pool)
        .await
        .expect("statistics");
    seed_returns(&api, 11, 8_000).await;
    let token = api.admin_token();
    for filter in [
        "",
        "status=refunded",
        "status=rejected",
        "customer_id=7",
        "order_id=4000",
        "created_from=2026-01-02T00:00:00Z&created_before=2026-01-02T00:00:00.007Z",
        "status=refunded&created_before=2026-01-02T00:00:00.007Z",
        "customer_id=7&created_from=2026-01-02T00:00:00.001Z",
    ] {
        let first = format!("/returns?{filter}&limit=20").replace("?&", "?");
        let micros = datetime!(2026-01-02 00:00:00.004 UTC).unix_timestamp_nanos() / 1_000;
        let deep = format!("{first}&cursor={micros}-4000");
        for path in [first, deep] {
            let reads = reads_of_page(&api, "list_returns", &path, &token).await;
            // The page, one more, and the search for the first.
            assert!(rows_read(&reads) <= 40, "{path}: {reads:?}");
            assert!(reads["Sort_rows"] <= 1, "{path}: {reads:?}");
        }
    }
    // They have no events, so the harness cannot check the rows.
    sqlx::query("DELETE FROM returns")
        .execute(&api.db.pool)
        .await
        .expect("delete");
    api.stop().await;
}
