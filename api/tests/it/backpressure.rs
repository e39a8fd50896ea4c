//! P12: the outbox stays bounded. New filings are refused above a limit of rows or bytes; reads never are.

use shared::test_support::mysql_proxy::MysqlProxy;
use shared::test_support::{TestDb, keep_when_silent};
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::harness::{Api, CUSTOMER, MEASURED_WITHIN, count, until};

/// The limit of rows in these tests; 80 % of it is 8.
const TEN_ROWS: [&str; 2] = ["--backlog-max-rows", "10"];

/// Adds `rows` foreign events to several shards, with `payload` bytes each.
async fn fill(db: &TestDb, rows: u32, payload: u32, age_secs: u32) {
    let insert = format!(
        "INSERT INTO outbox (shard, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, created_at) \
         WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows}) \
         SELECT n & 15, UUID_TO_BIN(UUID()), 1000000 + n, 1, 'other', 'other', 'other', REPEAT('x', {payload}), \
         UTC_TIMESTAMP(6) - INTERVAL {age_secs} SECOND FROM numbers"
    );
    db.pool.execute(AssertSqlSafe(insert)).await.expect("fill");
}

/// Deletes some of the rows of [`fill`], as if they were published.
async fn publish(db: &TestDb, rows: u32) {
    let delete = format!("DELETE FROM outbox WHERE topic = 'other' LIMIT {rows}");
    db.pool
        .execute(AssertSqlSafe(delete))
        .await
        .expect("publish");
}

/// The number in a line of `/readyz?verbose`, if it is the right line.
fn number(line: &str, before: &str, behind: &str) -> Option<f64> {
    let value = line.strip_prefix(before)?.strip_suffix(behind)?;
    value.parse().ok()
}

/// Checks the refusal that a client gets.
async fn is_refused(api: &Api, order: i64) {
    let answer = api.file(order).await;
    answer.problem(503, "backlog-full");
    assert_eq!(answer.header("retry-after"), Some("30"));
}

#[tokio::test]
async fn p12_above_the_limit_of_rows_filings_are_refused_until_80_percent() {
    let api = Api::start_with(&TEN_ROWS).await;
    api.db.seed_orders(1, 3, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    fill(&api.db, 9, 10, 0).await;
    api.until_measured("outbox_backlog_rows 10").await;
    let second = api.file(2).await.return_id();
    api.until_measured("outbox_backlog_refusing 1").await;

    is_refused(&api, 3).await;
    for table in ["returns", "return_events"] {
        let rows = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")));
        let rows: i64 = rows.fetch_one(&api.db.pool).await.expect(table);
        assert_eq!(rows, 2, "a refused filing wrote into {table}");
    }
    assert_eq!(count(&api.db, "SELECT COUNT(*) FROM outbox").await, 11);

    publish(&api.db, 2).await;
    api.until_measured("outbox_backlog_rows 9").await;
    is_refused(&api, 3).await;
    publish(&api.db, 1).await;
    api.until_measured("outbox_backlog_refusing 0").await;
    let third = api.file(3).await.return_id();
    assert!(id < second && second < third);

    let (_, metrics) = api.ops("/metrics").await;
    for line in [
        r#"filing_refused_total{reason="rows"} 2"#,
        r#"filing_outcomes_total{outcome="backlog-full"} 2"#,
        "outbox_backlog_max_rows 10",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    publish(&api.db, 10).await;
    api.stop().await;
}

#[tokio::test]
async fn p12_above_the_limit_of_bytes_filings_are_refused_until_80_percent() {
    let api = Api::start_with(&["--backlog-max-mib", "1"]).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    // 1 MiB is 1,048,576 and 80 % of it 838,860 bytes.
    fill(&api.db, 3, 400_000, 0).await;
    api.until_measured("outbox_backlog_bytes 1200000").await;
    is_refused(&api, 1).await;
    // Added before others are deleted: at no moment are there fewer bytes than in the end.
    fill(&api.db, 1, 100_000, 0).await;
    publish(&api.db, 1).await;
    api.until_measured("outbox_backlog_bytes 900000").await;
    is_refused(&api, 1).await;
    publish(&api.db, 1).await;
    api.until_measured("outbox_backlog_refusing 0").await;
    assert_eq!(api.file(1).await.status, 201);
    let (_, metrics) = api.ops("/metrics").await;
    let refused = r#"filing_refused_total{reason="bytes"} 2"#;
    assert!(metrics.contains(refused), "{metrics}");
    publish(&api.db, 10).await;
    api.stop().await;
}

#[tokio::test]
async fn p12_reads_and_readiness_work_while_filings_are_refused() {
    let api = Api::start_with(&TEN_ROWS).await;
    api.db.seed_orders(1, 2, CUSTOMER).await;
    let id = api.file(1).await.return_id();
    fill(&api.db, 20, 10, 0).await;
    api.until_measured("outbox_backlog_refusing 1").await;
    is_refused(&api, 2).await;
    let shown = api
        .get(&format!("/returns/{id}"), &api.customer_token())
        .await;
    assert_eq!(shown.status, 200);
    let page = api.get("/returns", &api.admin_token()).await;
    assert_eq!(page.json()["items"][0]["return_id"], id);
    assert_eq!(api.ops("/livez").await.0, 200);
    assert_eq!(api.ops("/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(api.ops("/readyz?verbose").await.0, 200);
    publish(&api.db, 20).await;
    api.stop().await;
}

#[tokio::test]
async fn p9_a_stored_response_is_replayed_while_new_filings_are_refused() {
    let api = Api::start_with(&TEN_ROWS).await;
    api.db.seed_orders(1, 2, CUSTOMER).await;
    let first = api.file_with(1, Some("key-1")).await;
    fill(&api.db, 20, 10, 0).await;
    api.until_measured("outbox_backlog_refusing 1").await;
    let again = api.file_with(1, Some("key-1")).await;
    assert_eq!((again.status, again.body), (201, first.body));
    api.file_with(2, Some("key-1"))
        .await
        .problem(422, "idempotency-key-reused");
    let refused = api.file_with(2, Some("key-2")).await;
    refused.problem(503, "backlog-full");
    assert_eq!(refused.header("retry-after"), Some("30"));
    assert_eq!(count(&api.db, "SELECT COUNT(*) FROM idempotency").await, 1);
    assert_eq!(count(&api.db, "SELECT COUNT(*) FROM returns").await, 1);
    publish(&api.db, 20).await;
    // The refusal was not stored: the same key files the return now.
    api.until_measured("outbox_backlog_refusing 0").await;
    assert_eq!(api.file_with(2, Some("key-2")).await.status, 201);
    api.stop().await;
}

#[tokio::test]
async fn p12_age_alone_raises_an_alarm_and_does_not_refuse() {
    let api = Api::start_with(&TEN_ROWS).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    fill(&api.db, 1, 10, 7200).await;
    api.until_measured("outbox_backlog_too_old 1").await;
    assert_eq!(api.file(1).await.status, 201);
    let (status, shown) = api.ops("/readyz?verbose").await;
    assert_eq!(status, 200);
    let age = shown
        .lines()
        .find_map(|line| number(line, "over outbox_oldest_age_seconds ", ", limit 60"));
    assert!(
        age.is_some_and(|age| (7200.0..7800.0).contains(&age)),
        "{shown}"
    );
    assert!(shown.contains("\nok filing accepted,"), "{shown}");
    publish(&api.db, 1).await;
    api.until_measured("outbox_backlog_too_old 0").await;
    api.stop().await;
}

#[tokio::test]
async fn p12_an_open_transaction_of_another_session_does_not_stop_the_measurement() {
    let api = Api::start_with(&TEN_ROWS).await;
    fill(&api.db, 5, 10, 0).await;
    let mut stranger = api.db.pool.acquire().await.expect("a connection");
    keep_when_silent(&mut stranger).await;
    let mut tx = stranger.begin().await.expect("begin");
    let locked = tx
        .fetch_all("SELECT id FROM outbox FOR UPDATE")
        .await
        .expect("lock");
    assert_eq!(locked.len(), 5);
    tx.execute("DELETE FROM outbox LIMIT 1")
        .await
        .expect("delete");
    fill(&api.db, 7, 10, 0).await;
    // The rows whose deletion is not committed are still there.
    api.until_measured("outbox_backlog_rows 12").await;
    api.until_measured("outbox_backlog_refusing 1").await;
    tx.rollback().await.expect("rollback");
    drop(stranger);
    publish(&api.db, 12).await;
    api.stop().await;
}

#[tokio::test]
async fn p12_while_mysql_is_away_the_last_decision_stands() {
    let db = TestDb::create().await;
    let (proxy, url) = MysqlProxy::before(db.url()).await;
    // Tokens are accepted for as long as MySQL is away.
    let flags = [&TEN_ROWS[..], &["--revocations-max-age-secs", "3600"]].concat();
    let api = Api::start_on(db, &url, &flags).await;
    fill(&api.db, 11, 10, 3600).await;
    api.until_measured("outbox_backlog_rows 11").await;
    proxy.go_away();
    // Changes from now on are not measured.
    publish(&api.db, 11).await;
    until("a measurement fails", MEASURED_WITHIN, || async {
        let failures = api.metric("outbox_backlog_measure_failures_total").await;
        (failures >= 1.0).then_some(())
    })
    .await;
    is_refused(&api, 1).await;
    let (status, shown) = api.ops("/readyz?verbose").await;
    assert_eq!(status, 503);
    for line in [
        "over mysql_answer_ms none, limit 1000",
        "over outbox_rows 11, limit 10, accepts again at 8",
        "over filing refused by rows, limit rows and bytes above",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    proxy.come_back();
    api.until_measured("outbox_backlog_refusing 0").await;
    api.stop().await;
}

#[tokio::test]
async fn verbose_readiness_shows_each_check_with_value_and_limit() {
    let flags = [&TEN_ROWS[..], &["--backlog-alarm-age-secs", "3600"]].concat();
    let api = Api::start_with(&flags).await;
    fill(&api.db, 3, 20, 1).await;
    api.until_measured("outbox_backlog_rows 3").await;
    let (status, shown) = api.ops("/readyz?verbose").await;
    assert_eq!(status, 200);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "ready");
    // Two lines contain a time; the others are exact.
    assert!(
        number(lines[1], "ok mysql_answer_ms ", ", limit 1000").is_some(),
        "{shown}"
    );
    assert_eq!(lines[2], "ok outbox_rows 3, limit 10, accepts again at 8");
    assert_eq!(
        lines[3],
        "ok outbox_payload_bytes 60, limit 4294967296, accepts again at 3435973836"
    );
    let age = number(lines[4], "ok outbox_oldest_age_seconds ", ", limit 3600");
    assert!(age.is_some_and(|age| age >= 1.0), "{shown}");
    assert!(
        number(lines[5], "ok outbox_measured_seconds_ago ", ", limit 240").is_some(),
        "{shown}"
    );
    assert_eq!(lines[6], "ok filing accepted, limit rows and bytes above");
    assert!(
        number(lines[7], "ok revocations_age_seconds ", ", limit 60").is_some(),
        "{shown}"
    );
    assert_eq!(lines.len(), 8, "{shown}");
    // Without `verbose` the response has one line.
    assert_eq!(
        api.ops("/readyz?other=1").await,
        (200, "ready\n".to_owned())
    );
    publish(&api.db, 3).await;
    api.stop().await;
}
