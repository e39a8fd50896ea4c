//! Grouped statements must not wait for strangers, whatever the statistics say (they are taken while a table is small).

use shared::ids::CustomerId;
use sqlx::Row;

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
    // A wait would end after 5 s with error 1205 and be run again.
    for step in ["claim", "settle", "reconcile"] {
        assert_eq!(
            running
                .metrics
                .transient_failures
                .with_label_values(&[step])
                .get(),
            0,
            "{step}"
        );
    }
    let slowest = running.metrics.claim_seconds.get_sample_sum();
    assert!(slowest < 4.0, "all claims together took {slowest} s");
    stranger.rollback().await.expect("rollback");
    running.stop().await;
}

/// The texts of `store/scans.rs` with their values in place: a plan needs literals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scans_use_their_indexes() {
    let world = World::new().await;
    for order in 1..=30 {
        world.file(order).await;
    }
    let plans = [
        (
            "SELECT id, updated_at FROM returns FORCE INDEX (status_updated) WHERE status = 'initiated' \
             AND updated_at <= UTC_TIMESTAMP(6) - INTERVAL 60 SECOND AND updated_at >= '2000-01-01 00:00:00.000000' \
             AND (updated_at > '2000-01-01 00:00:00.000000' OR id > 0) AND review_required = 0 \
             ORDER BY updated_at, id LIMIT 100",
            "status_updated",
        ),
        (
            "SELECT id, updated_at FROM returns FORCE INDEX (status_updated) WHERE status = 'approved' \
             AND updated_at >= '2000-01-01 00:00:00.000000' \
             AND (updated_at > '2000-01-01 00:00:00.000000' OR id > 0) ORDER BY updated_at, id LIMIT 100",
            "status_updated",
        ),
        (
            "SELECT f.return_id FROM refunds AS f FORCE INDEX (due) \
             STRAIGHT_JOIN returns AS r FORCE INDEX (PRIMARY) ON r.id = f.return_id \
             WHERE f.state IN ('claimed', 'sent', 'pending', 'unknown') AND f.next_check_at <= UTC_TIMESTAMP(6) \
             AND (f.call_deadline IS NULL OR f.call_deadline <= UTC_TIMESTAMP(6)) \
             AND (f.gateway IS NULL OR f.gateway = 'simulated') LIMIT 100",
            "due",
        ),
        (
            "DELETE /*+ INDEX(inbox received_at) */ FROM inbox \
             WHERE received_at < UTC_TIMESTAMP(6) - INTERVAL 14 DAY AND consumer = 'c' ORDER BY received_at LIMIT 500",
            "received_at",
        ),
    ];
    for (statement, index) in plans {
        let plan = sqlx::query(sqlx::AssertSqlSafe(format!(
            "EXPLAIN FORMAT=TRADITIONAL {statement}"
        )))
        .fetch_all(&world.db.pool)
        .await
        .expect("a plan");
        let first = &plan[0];
        let text = |name: &str| first.try_get::<Option<String>, _>(name).expect("a column");
        assert_eq!(text("key").as_deref(), Some(index), "{statement}");
        assert_eq!(text("type").as_deref(), Some("range"), "{statement}");
        assert!(
            !text("Extra").unwrap_or_default().contains("filesort"),
            "{statement}"
        );
    }
}
