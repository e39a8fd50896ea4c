//! Filings for an order of another customer: they lock nothing, wait for nothing, and look like those for an unknown order.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use sqlx::Connection;

use crate::harness::{Answer, Api, CUSTOMER, post_return, until};
use crate::tokens::Format;

const ORDER: i64 = 1;
const UNKNOWN: i64 = 999;

async fn api() -> Api {
    let api = Api::start_with(&["--filing-writers", "1"]).await;
    api.db.seed_orders(ORDER, 1, CUSTOMER).await;
    api
}

/// A filing by a customer who has no orders.
async fn file_as_stranger(api: &Api, order: i64) -> Answer {
    let token = api.token_of(Format::Jwt, CUSTOMER.0 + 1, "customer");
    let body = json!({"order_id": order, "reason": "x"});
    post_return(&api.http, api.address, &token, &body, None).await
}

async fn file_often(api: &Api, filings: usize) {
    for _ in 0..filings {
        let answer = file_as_stranger(api, ORDER).await;
        answer.problem(400, "unknown-order");
    }
}

/// As a claim and a settlement lock an order: they skip it if another transaction holds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_a_strangers_filings_never_hold_an_order() {
    const FILINGS: usize = 300;
    let api = api().await;
    let mut session = api.db.pool.acquire().await.expect("a session");
    let (mut locked, mut skipped) = (0, 0);
    {
        let mut filings = std::pin::pin!(file_often(&api, FILINGS));
        loop {
            let order = sqlx::query("SELECT id FROM orders WHERE id = ? FOR UPDATE SKIP LOCKED")
                .bind(ORDER)
                .fetch_optional(&mut *session);
            tokio::select! {
                () = &mut filings => break,
                found = order => match found.expect("a lock") {
                    Some(_) => locked += 1,
                    None => skipped += 1,
                },
            }
        }
    }
    assert!(locked + skipped >= FILINGS, "{locked} and {skipped}");
    assert_eq!(skipped, 0, "of {}", locked + skipped);
    drop(session);
    api.stop().await;
}

#[tokio::test]
async fn p12_a_stranger_does_not_wait_for_an_order_that_is_locked() {
    let api = api().await;
    let mut session = api.db.pool.acquire().await.expect("a session");
    let mut tx = session.begin().await.expect("begin");
    sqlx::query("SELECT id FROM orders WHERE id = ? FOR UPDATE")
        .bind(ORDER)
        .execute(&mut *tx)
        .await
        .expect("lock");
    let answer = file_as_stranger(&api, ORDER);
    // A lock wait lasts 5 s.
    let answer = tokio::time::timeout(Duration::from_secs(4), answer).await;
    answer
        .expect("no wait for the lock")
        .problem(400, "unknown-order");
    tx.rollback().await.expect("rollback");
    drop(session);
    api.stop().await;
}

/// The response must not show in its time which orders exist.
#[tokio::test]
async fn p13_a_foreign_order_costs_what_an_unknown_one_costs() {
    let api = api().await;
    // Prepares the statements, and opens the connections.
    for order in [ORDER, UNKNOWN, ORDER, UNKNOWN] {
        file_as_stranger(&api, order)
            .await
            .problem(400, "unknown-order");
    }
    let foreign = cost(&api, ORDER).await;
    assert_eq!(foreign, cost(&api, UNKNOWN).await);
    assert!(foreign["Questions"] > 0, "{foreign:?}");
    api.stop().await;
}

/// What one filing costs the server: statements and reads of the connections that file.
async fn cost(api: &Api, order: i64) -> BTreeMap<String, u64> {
    let before = counters(api).await;
    file_as_stranger(api, order)
        .await
        .problem(400, "unknown-order");
    let mut after = counters(api).await;
    for (name, count) in &mut after {
        *count -= before[name];
    }
    after
}

/// The counters are of the past once the transaction has ended.
async fn counters(api: &Api) -> BTreeMap<String, u64> {
    let query = "SELECT variable_name, CAST(SUM(variable_value) AS UNSIGNED) FROM performance_schema.status_by_thread \
                 WHERE (variable_name LIKE 'Handler\\_read%' OR variable_name = 'Questions') AND thread_id IN ( \
                 SELECT h.thread_id FROM performance_schema.events_statements_history h \
                 JOIN performance_schema.threads t ON t.thread_id = h.thread_id \
                 WHERE t.processlist_db = DATABASE() AND h.sql_text LIKE '/* read_orders */%') GROUP BY variable_name";
    let read = || async {
        let rows: Vec<(String, u64)> = sqlx::query_as(query)
            .fetch_all(&api.db.pool)
            .await
            .expect("counters");
        BTreeMap::from_iter(rows)
    };
    until(
        "the counters stand still",
        Duration::from_secs(10),
        || async {
            let before = read().await;
            crate::harness::pause().await;
            let after = read().await;
            (before == after).then_some(after)
        },
    )
    .await
}
