//! P12: what waits in the outbox is known before a filing is accepted, and one api measures it for all.

use std::time::Duration;

use shared::test_support::TestDb;
use shared::test_support::mysql_proxy::{Cut, MysqlProxy};
use sqlx::{AssertSqlSafe, Executor};

use crate::harness::{Api, CUSTOMER, MEASURED_WITHIN, count, until};

const TEN_ROWS: [&str; 2] = ["--backlog-max-rows", "10"];

async fn execute(db: &TestDb, sql: &str) {
    let done = db.pool.execute(AssertSqlSafe(sql.to_owned())).await;
    done.expect(sql);
}

/// An api that has measured an empty outbox, and one order.
async fn accepting_api() -> Api {
    let api = Api::start_with(&TEN_ROWS).await;
    api.db.seed_orders(1, 1, CUSTOMER).await;
    api.until_measured("outbox_backlog_refusing 0").await;
    api
}

/// Adds foreign events, in every shard.
async fn fill(db: &TestDb, rows: u32) {
    let insert = format!(
        "INSERT INTO outbox (shard, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, created_at) \
         WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows}) \
         SELECT n & 15, UUID_TO_BIN(UUID()), 1000000 + n, 1, 'other', 'other', 'other', 'x', UTC_TIMESTAMP(6) FROM numbers"
    );
    execute(db, &insert).await;
}

#[tokio::test]
async fn p12_no_filing_is_accepted_before_the_outbox_is_measured() {
    let db = TestDb::create().await;
    db.seed_orders(1, 2, CUSTOMER).await;
    fill(&db, 40).await;
    let (proxy, url) = MysqlProxy::before(db.url()).await;
    proxy.arm_at_each("/* measure_shard */", Cut::FrozenAfterServer);
    let api = Api::start_on(db, &url, &TEN_ROWS).await;
    api.file(1).await.problem(503, "backlog-full");
    assert_eq!(count(&api.db, "SELECT COUNT(*) FROM returns").await, 0);
    proxy.disarm();
    api.until_measured("outbox_backlog_refusing 1").await;
    api.file(1).await.problem(503, "backlog-full");
    execute(&api.db, "DELETE FROM outbox").await;
    api.until_measured("outbox_backlog_refusing 0").await;
    assert_eq!(api.file(1).await.status, 201);
    api.stop().await;
}

/// How often this api counted a part of the outbox.
fn measurements(metrics: &str) -> u64 {
    let name =
        r#"db_client_operation_duration_seconds_count{operation="measure_outbox",outcome="ok"} "#;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |number| number.parse().expect("a number"))
}

#[tokio::test]
async fn p12_one_api_measures_for_all() {
    let one = Api::start_with(&TEN_ROWS).await;
    one.db.seed_orders(1, 2, CUSTOMER).await;
    one.until_measured("outbox_backlog_refusing 0").await;
    let two = one.start_another_with(&TEN_ROWS).await;
    fill(&one.db, 40).await;
    until("both refuse", Duration::from_secs(20), || async {
        let refusing = |metrics: &str| metrics.contains("outbox_backlog_refusing 1");
        let (one, two) = (one.ops("/metrics").await.1, two.ops("/metrics").await.1);
        (refusing(&one) && refusing(&two)).then_some(())
    })
    .await;
    assert!(measurements(&one.ops("/metrics").await.1) > 0);
    assert_eq!(measurements(&two.ops("/metrics").await.1), 0);
    execute(&one.db, "DELETE FROM outbox").await;
    two.stop.cancel();
    two.task.await.expect("no panic").expect("a clean end");
    one.stop().await;
}

/// The api that counts does not wait for the end of its count either. The count stands still after the first shard, and the
/// row does not show it yet.
#[tokio::test]
async fn p12_the_api_that_counts_refuses_as_soon_as_its_count_is_above_the_limit() {
    let db = TestDb::create().await;
    db.seed_orders(1, 1, CUSTOMER).await;
    fill(&db, 400).await;
    let (proxy, url) = MysqlProxy::before(db.url()).await;
    proxy.arm_after(1, "/* measure_shard */", Cut::FrozenAfterServer);
    let api = Api::start_on(db, &url, &TEN_ROWS).await;
    until("refused by rows", MEASURED_WITHIN, async || {
        let (_, checks) = api.ops("/readyz?verbose").await;
        checks.contains("refused by rows")
    })
    .await;
    assert!(proxy.sprung());
    let shown = "SELECT COUNT(*) FROM outbox_backlog WHERE counted_rows IS NOT NULL OR measured_at IS NOT NULL";
    assert_eq!(count(&api.db, shown).await, 0, "the count has ended");
    assert_eq!(api.metric("outbox_backlog_refusing").await, 1.0);
    api.file(1).await.problem(503, "backlog-full");
    execute(&api.db, "DELETE FROM outbox").await;
    api.until_measured("outbox_backlog_refusing 0").await;
    api.stop().await;
}

/// Stands for another api that measures, and shows what it has counted so far.
async fn another_measures(db: &TestDb, columns: &str) {
    let row = format!(
        "UPDATE outbox_backlog SET measurer = UUID_TO_BIN(UUID()), measuring_until = UTC_TIMESTAMP(6) + INTERVAL 2 MINUTE, {columns}"
    );
    execute(db, &row).await;
}

#[tokio::test]
async fn p12_a_count_that_has_not_ended_refuses_above_the_limit() {
    let api = accepting_api().await;
    another_measures(&api.db, "counted_rows = 11, counted_bytes = 11").await;
    api.until_measured("outbox_backlog_refusing 1").await;
    api.file(1).await.problem(503, "backlog-full");
    another_measures(&api.db, "counted_rows = 10, counted_bytes = 10").await;
    api.until_measured("outbox_backlog_refusing 0").await;
    assert_eq!(api.file(1).await.status, 201);
    api.stop().await;
}

#[tokio::test]
async fn p12_an_old_measurement_accepts_nothing() {
    let api = accepting_api().await;
    let old = "measured_at = UTC_TIMESTAMP(6) - INTERVAL 11 MINUTE";
    another_measures(&api.db, old).await;
    api.until_measured("outbox_backlog_refusing 1").await;
    api.file(1).await.problem(503, "backlog-full");
    let (_, metrics) = api.ops("/metrics").await;
    let refused = r#"filing_refused_total{reason="unmeasured"} 1"#;
    assert!(metrics.contains(refused), "{metrics}");
    api.stop().await;
}

/// As after the database's clock went back. It is not known how old that measurement is.
#[tokio::test]
async fn p12_a_measurement_of_the_future_accepts_nothing() {
    let api = accepting_api().await;
    let future = "measured_at = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR, next_at = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR";
    another_measures(&api.db, future).await;
    api.until_metric("outbox_backlog_refusing 1").await;
    api.file(1).await.problem(503, "backlog-full");
    let (_, metrics) = api.ops("/metrics").await;
    let refused = r#"filing_refused_total{reason="unmeasured"} 1"#;
    assert!(metrics.contains(refused), "{metrics}");
    api.stop().await;
}

/// The api that measured before the clock went back is gone, and its lease lasts until the clock is there again.
#[tokio::test]
async fn p12_the_outbox_is_measured_again_when_the_clock_of_the_database_went_back() {
    let api = accepting_api().await;
    execute(
        &api.db,
        "UPDATE outbox_backlog SET measurer = UUID_TO_BIN(UUID()), measured_at = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR, \
         next_at = measured_at + INTERVAL 1 SECOND, measuring_until = measured_at + INTERVAL 16 SECOND",
    )
    .await;
    let measured = "SELECT measured_at <= UTC_TIMESTAMP(6) FROM outbox_backlog";
    until(
        "it is measured again",
        Duration::from_secs(15),
        async || count(&api.db, measured).await == 1,
    )
    .await;
    api.until_metric("outbox_backlog_refusing 0").await;
    assert_eq!(api.file(1).await.status, 201);
    api.stop().await;
}

/// The measuring api says nothing when it ends, as after a kill.
#[tokio::test]
async fn p12_another_api_measures_when_the_measuring_one_is_gone() {
    let one = accepting_api().await;
    let two = one.start_another_with(&TEN_ROWS).await;
    let (db, _) = one.stop_and_keep_db().await;
    fill(&db, 40).await;
    until("the other one refuses", Duration::from_secs(60), || async {
        let (_, metrics) = two.ops("/metrics").await;
        let shown = metrics.contains("outbox_backlog_rows 40");
        (shown && metrics.contains("outbox_backlog_refusing 1")).then_some(())
    })
    .await;
    assert!(measurements(&two.ops("/metrics").await.1) > 0);
    two.stop.cancel();
    two.task.await.expect("no panic").expect("a clean end");
}
