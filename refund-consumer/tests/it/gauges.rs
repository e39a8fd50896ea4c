//! The gauges of waiting returns and refunds are read from the rows.

use std::time::Duration;

use refund_consumer::floors::BEGINNING;
use refund_consumer::store::{Standstill, read_gauges};
use shared::domain::status::Status;

use crate::harness::{World, until_true};

const HOUR: u64 = 3600;

async fn hours(world: &World) -> Vec<(&'static str, u64)> {
    let mut conn = world.db.pool.acquire().await.expect("a connection");
    let gauges = read_gauges(&mut conn, "simulated", |_| BEGINNING).await;
    let gauges = gauges.expect("the gauges");
    let rounded = |age: Duration| (age.as_secs() + HOUR / 2) / HOUR;
    let kinds = Standstill::ALL.into_iter();
    kinds
        .map(|kind| (kind.code(), rounded(gauges.age(kind))))
        .collect()
}

/// A return under review waits for a person, so it must not raise an alarm about the pipeline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_each_kind_has_an_age_of_its_own() {
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
    let [initiated, review, ..] = &running.metrics.rows.oldest[..] else {
        panic!("an age for each kind")
    };
    until_true("the review is counted", || {
        review.get().as_secs() > 47 * HOUR
    })
    .await;
    assert!(initiated.get().as_secs() < 60);
    assert_eq!(running.metrics.rows.parked_attempts.get(), 0);
    running.stop().await;
}

/// Whether a consumer or a person has to act on them, and whichever account they belong to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_the_attempts_that_wait_are_counted_by_state() {
    let world = World::new().await;
    let first = world.start(world.simulated(), &[]).await;
    let filed = world.file_all(1..=9, false).await;
    for one in &filed {
        world.announce(one).await;
    }
    for one in &filed {
        world.wait_for(one.return_id, "refunded").await;
    }
    first.stop().await;
    let states = [
        "claimed", "claimed", "claimed", "sent", "pending", "pending", "unknown", "parked",
        "parked",
    ];
    for (one, state) in filed.iter().zip(states) {
        let moved = sqlx::query(
            "UPDATE refunds SET state = ?, gateway = 'another', recheck_at = NULL, \
             next_check_at = UTC_TIMESTAMP(6) + INTERVAL 1 DAY WHERE return_id = ?",
        )
        .bind(state)
        .bind(one.return_id)
        .execute(&world.db.pool)
        .await;
        assert_eq!(moved.expect("moved").rows_affected(), 1);
    }
    let running = world.start(world.simulated(), &[]).await;
    let expected = [
        ("claimed", 3.0),
        ("parked", 2.0),
        ("pending", 2.0),
        ("sent", 1.0),
        ("unknown", 1.0),
    ];
    let expected = expected.map(|(state, count)| (format!(r#"{{state="{state}"}}"#), count));
    let shown = || running.shown("refund_consumer_attempts");
    until_true("they are counted", || {
        shown().into_iter().eq(expected.clone())
    })
    .await;
    until_true("the parked ones are", || {
        running.metrics.rows.parked_attempts.get() == 2
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_dead_letters_are_counted_until_somebody_takes_them_away() {
    let world = World::new().await;
    let running = world.start(world.simulated(), &[]).await;
    for text in ["{", "[]", ""] {
        world.send(None, Some(text.as_bytes()), &[]).await;
    }
    let waiting = |count: i64| running.metrics.rows.dead_letters_waiting.get() == count;
    until_true("all three wait", || waiting(3)).await;
    // As `returnsctl dead-letters redrive` and `discard` do.
    world
        .execute(
            "DELETE FROM dead_letters WHERE reason <> 'empty' AND id > ?",
            0,
        )
        .await;
    until_true("one is left", || waiting(1)).await;
    running.stop().await;
}
