//! Batch statements must not wait for other sessions, whatever the statistics say (they are taken while a table is
//! small).

use std::collections::HashMap;

use refund_consumer::floors::BEGINNING;
use refund_consumer::store::{self, DueKind, Page, Waiting};
use shared::domain::ids::CustomerId;
use shared::domain::refund::{AttemptState, overdue_rechecks};
use shared::test_support::{TestDb, keep_when_silent};
use sqlx::ConnectOptions;
use sqlx::mysql::MySqlConnection;

use crate::harness::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_and_a_settlement_do_not_wait_for_a_strangers_uncommitted_return() {
    let world = World::new().await;
    world.db.seed_orders(9_000, 1, CustomerId(7)).await;
    for table in ["orders", "returns", "return_events", "refunds", "inbox"] {
        // Statistics as of empty tables make a scan look cheap.
        sqlx::query(sqlx::AssertSqlSafe(format!("ANALYZE TABLE {table}")))
            .execute(&world.db.pool)
            .await
            .expect("statistics");
    }
    let mut filed = Vec::new();
    for order in 1..=200 {
        filed.push(world.file(order).await);
    }
    let mut stranger = world.db.pool.begin().await.expect("begin");
    keep_when_silent(&mut stranger).await;
    sqlx::query(
        "INSERT INTO returns (order_id, customer_id, reason, version, policy_version, refund_amount, currency, created_at, \
         updated_at) VALUES (9000, 7, 'r', 1, 'p', 1, 'EUR', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
    )
    .execute(&mut *stranger)
    .await
    .expect("a stranger's return");
    sqlx::query(
        "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, created_at, \
         updated_at) VALUES (LAST_INSERT_ID(), 1, 'stranger', 1, 'EUR', 'claimed', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), \
         UTC_TIMESTAMP(6))",
    )
    .execute(&mut *stranger)
    .await
    .expect("a stranger's attempt");
    sqlx::query("UPDATE orders SET total = total WHERE id = 9000")
        .execute(&mut *stranger)
        .await
        .expect("a stranger's order");

    for one in &filed {
        world.announce(one).await;
    }
    let running = world
        .start(world.simulated(), &["--initiated-grace-secs=0"])
        .await;
    for one in &filed {
        world.wait_for(one.return_id, "refunded").await;
    }
    // A wait would end after 5 s with error 1205, and the transaction would run again.
    for step in ["claim", "settle", "reconcile"] {
        assert_eq!(
            running
                .metrics
                .work
                .transient_failures
                .with_label_values(&[step])
                .get(),
            0,
            "{step}"
        );
    }
    stranger.rollback().await.expect("rollback");
    running.stop().await;
}

/// With the statistics of empty tables, and with those of many returns that were refunded long ago: a scan reads only the
/// rows that it finds.
#[tokio::test]
async fn the_scans_read_only_the_rows_that_they_find() {
    let db = TestDb::create().await;
    // Counters are kept by session.
    let mut conn = db.pool.connect_options().connect().await.expect("MySQL");
    db.seed_orders(1, 5_000, CustomerId(7)).await;
    for sql in [
        "INSERT INTO returns (id, order_id, customer_id, reason, status, version, policy_version, refund_amount, \
         currency, review_required, created_at, updated_at) SELECT id, id, 7, 'x', \
         CASE WHEN id % 500 = 0 OR id % 500 > 470 THEN 'initiated' WHEN id % 500 = 1 THEN 'approved' \
         WHEN id % 500 = 2 THEN 'refund_pending' ELSE 'refunded' END, \
         1, 'x', 1, 'EUR', id % 500 > 470, UTC_TIMESTAMP(6) - INTERVAL 1 DAY, UTC_TIMESTAMP(6) - INTERVAL 1 DAY FROM orders",
        "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, gateway, gateway_ref, \
         next_check_at, recheck_at, created_at, updated_at) \
         SELECT id, 1, id, 1, 'EUR', IF(status = 'refunded', 'succeeded', 'unknown'), 'simulated', 'r', \
         UTC_TIMESTAMP(6) - INTERVAL 1 DAY, UTC_TIMESTAMP(6) + INTERVAL IF(id % 500 = 3, -1, 1) DAY, \
         UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM returns \
         WHERE status IN ('refunded', 'refund_pending')",
        "INSERT INTO inbox (consumer, event_id, received_at) SELECT 'c', UUID_TO_BIN(UUID()), \
         UTC_TIMESTAMP(6) - INTERVAL IF(id <= 10, 15, 13) DAY FROM orders",
    ] {
        sqlx::query(sql).execute(&mut conn).await.expect(sql);
    }
    every_scan(&mut conn).await;
    sqlx::query("ANALYZE TABLE returns, refunds, inbox")
        .fetch_all(&mut conn)
        .await
        .expect("statistics");
    // Ten more to delete; the other scans change nothing.
    sqlx::query("UPDATE inbox SET received_at = received_at - INTERVAL 2 DAY LIMIT 10")
        .execute(&mut conn)
        .await
        .expect("inbox");
    every_scan(&mut conn).await;
}

/// Each finds ten rows.
async fn every_scan(conn: &mut MySqlConnection) {
    const PAGE: u32 = 100;
    for (waiting, finds) in [
        (Waiting::Initiated { grace_secs: 60 }, 10),
        (Waiting::Approved { reviewed: false }, 10),
        (Waiting::Approved { reviewed: true }, 0),
    ] {
        let before = reads(conn).await;
        let found = store::waiting_returns(conn, waiting, Page::from(BEGINNING), PAGE).await;
        assert_eq!(found.expect("a page").len(), finds);
        few(&before, &reads(conn).await, &format!("{waiting:?}"));
    }
    for (kind, finds) in [
        (DueKind::Open(AttemptState::Unknown), 10),
        (DueKind::Open(AttemptState::Claimed), 0),
        (DueKind::Recheck, 10),
    ] {
        let before = reads(conn).await;
        let due = store::due_attempts(conn, "simulated", kind, BEGINNING, PAGE).await;
        assert_eq!(due.expect("a page").1.len(), finds);
        few(&before, &reads(conn).await, &format!("{kind:?}"));
    }
    let before = reads(conn).await;
    let gauges = store::read_gauges(conn, "simulated", |_| BEGINNING).await;
    assert_eq!(gauges.expect("the gauges").parked, 0);
    few(&before, &reads(conn).await, "gauges");
    let before = reads(conn).await;
    let overdue = overdue_rechecks(conn).await.expect("re-checks");
    assert_eq!(overdue.iter().map(|one| one.attempts).sum::<i64>(), 10);
    few(&before, &reads(conn).await, "overdue re-checks");
    let before = reads(conn).await;
    let deleted = store::expire_inbox(conn, 14, PAGE).await;
    assert_eq!(deleted.expect("a page"), 10);
    few(&before, &reads(conn).await, "inbox");
}

/// The numbers of reads and sorted rows of this session so far.
async fn reads(conn: &mut MySqlConnection) -> HashMap<String, u64> {
    let counters = "SHOW SESSION STATUS WHERE Variable_name LIKE 'Handler\\_read%' OR Variable_name = 'Sort_rows'";
    let rows: Vec<(String, String)> = sqlx::query_as(counters)
        .fetch_all(conn)
        .await
        .expect("counters");
    let number = |(name, count): (String, String)| (name, count.parse().expect("a number"));
    rows.into_iter().map(number).collect()
}

/// For each row found: at most one step in the index, one look-up of the row and one of its return. Nothing is sorted, and
/// no table is read from its beginning.
fn few(before: &HashMap<String, u64>, after: &HashMap<String, u64>, scan: &str) {
    let read = |name: &str| after[name] - before[name];
    assert_eq!(read("Sort_rows"), 0, "{scan}");
    let by_index = ["Handler_read_key", "Handler_read_next"].map(read);
    let all: u64 = after
        .keys()
        .filter(|name| *name != "Sort_rows")
        .map(|name| read(name))
        .sum();
    assert!(all <= 40, "{scan}: {all} reads, by index {by_index:?}");
}
