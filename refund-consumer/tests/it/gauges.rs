//! The gauges of what waits are read from the rows.

use std::time::Duration;

use refund_consumer::store::{Gauges, Standstill, read_gauges};
use shared::domain::status::Status;

use crate::harness::{World, until_true};

const HOUR: u64 = 3600;

async fn hours(world: &World) -> Vec<(&'static str, u64)> {
    let census: Gauges = read_gauges(&world.db.pool).await.expect("a census");
    let rounded = |age: Duration| (age.as_secs() + HOUR / 2) / HOUR;
    let kinds = Standstill::ALL.into_iter().map(Standstill::code);
    kinds.zip(census.oldest.map(rounded)).collect()
}

/// A return under review is waited for by a person, not by an alarm about the pipeline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_the_oldest_of_each_kind_is_told_apart() {
    let world = World::new().await;
    assert!(hours(&world).await.iter().all(|(_, age)| *age == 0));
    world.file_all(1..=8, false).await;
    for (order, status, review, hours) in [
        (1, "initiated", 0, 1),
        (2, "initiated", 0, 2),
        (3, "initiated", 1, 50),
        (4, "approved", 0, 3),
        (5, "approved", 1, 4),
        (6, "refund_pending", 1, 5),
        (7, "refund_failed", 0, 6),
        (8, "refunded", 0, 99),
    ] {
        let moved = sqlx::query(
            "UPDATE returns SET status = ?, review_required = ?, updated_at = UTC_TIMESTAMP(6) - INTERVAL ? HOUR \
             WHERE order_id = ?",
        )
        .bind(status)
        .bind(review)
        .bind(hours)
        .bind(order)
        .execute(&world.db.pool)
        .await;
        assert_eq!(moved.expect("moved").rows_affected(), 1);
    }
    let expected = [
        (Standstill::In(Status::Initiated), 2),
        (Standstill::Review, 50),
        (Standstill::In(Status::Approved), 4),
        (Standstill::In(Status::RefundPending), 5),
        (Standstill::In(Status::RefundFailed), 6),
    ];
    assert_eq!(
        hours(&world).await,
        expected.map(|(kind, hours)| (kind.code(), hours))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_running_consumer_shows_them() {
    let world = World::new().await;
    world.file_days_ago(2, 1..=1, |_| true).await;
    let running = world.start(world.simulated(), &[]).await;
    let seconds = |kind: &str| {
        let gauge = &running.metrics.oldest_seconds;
        gauge.with_label_values(&[kind]).get()
    };
    until_true("the review is counted", || {
        seconds("in_review") > 47.0 * 3600.0
    })
    .await;
    assert!(seconds("initiated") < 60.0);
    assert_eq!(running.metrics.parked_attempts.get(), 0);
    running.stop().await;
}
