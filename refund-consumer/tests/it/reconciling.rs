use std::time::Duration;

use refund_consumer::floors::BEGINNING;
use refund_consumer::gateway::{RefundGateway, RefundRequest};
use refund_consumer::store::{Page, Waiting, read_earlier, waiting_returns};
use shared::domain::ids::ReturnId;
use shared::domain::money::{Currency, Money};
use shared::domain::refund::{AttemptId, ProviderKey};
use shared::domain::transition::Filed;
use shared::test_support::until;
use uuid::Uuid;

use crate::harness::fake::Fake;
use crate::harness::{World, types, until_true};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_return_whose_message_was_lost_is_found() {
    let world = World::new().await;
    let running = world
        .start(world.simulated(), &["--initiated-grace-secs=0"])
        .await;
    let filed = world.file(1).await;
    world.wait_for(filed.return_id, "refunded").await;
    let events = world.audited(filed.return_id).await;
    assert_eq!(
        types(&events)[1..],
        ["return.approved", "refund.requested", "refund.succeeded"]
    );
    for event in &events[1..] {
        assert_eq!(
            event.trace_id, events[0].trace_id,
            "the filing's trace goes on"
        );
    }
    // A late message finds nothing left to do.
    world.announce(&filed).await;
    until_true("the late message is counted", || {
        running.messages("already_moved") == 1
    })
    .await;
    assert_eq!(world.effects(), 1);
    running.stop().await;
}

/// Every third waits for a review: the pages hold the returns in between, all of the same microsecond.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_days_lost_messages_are_found_page_by_page() {
    const RETURNS: i64 = 480;
    const PAGE: u32 = 100;
    let world = World::new().await;
    let needs_review = |order: i64| order % 3 == 0;
    let filed = world.file_days_ago(31, 1..=RETURNS, needs_review).await;
    let (wait, go): (Vec<Filed>, Vec<Filed>) = filed
        .iter()
        .partition(|filed| needs_review(filed.order_id.0));

    let mut conn = world.db.pool.acquire().await.expect("a connection");
    let (mut found, mut after, mut pages) = (Vec::new(), Page::from(BEGINNING), 0);
    let waiting = Waiting::Initiated { grace_secs: 3600 };
    loop {
        let page = waiting_returns(&mut conn, waiting, after, PAGE).await;
        let page = page.expect("a page");
        pages += 1;
        found.extend(page.iter().map(|row| row.id));
        match page.last() {
            Some(last) if page.len() == 100 => after = *last,
            _ => break,
        }
    }
    let expected: Vec<ReturnId> = go.iter().map(|filed| filed.return_id).collect();
    assert_eq!((found, pages), (expected, 4), "each once, in order");

    let running = world
        .start(world.simulated(), &["--initiated-grace-secs=3600"])
        .await;
    for one in &go {
        world.wait_for(one.return_id, "refunded").await;
    }
    for one in wait.iter().step_by(20) {
        assert_eq!(
            world.status(one.return_id).await,
            ("initiated".to_owned(), 1)
        );
    }
    for one in go.iter().step_by(40) {
        assert_eq!(world.audited(one.return_id).await.len(), 4);
    }
    assert_eq!(world.effects(), go.len());
    let scanned = running
        .metrics
        .work
        .found_waiting
        .with_label_values(&["initiated"]);
    assert_eq!(
        usize::try_from(scanned.get()),
        Ok(go.len()),
        "each was found once"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_return_is_left_to_its_message_for_a_while() {
    let world = World::new().await;
    let running = world
        .start(world.simulated(), &["--initiated-grace-secs=3600"])
        .await;
    let young = world.file(1).await;
    let old = world.file(2).await;
    world
        .execute(
            "UPDATE returns SET updated_at = updated_at - INTERVAL 2 HOUR WHERE id = ?",
            old.return_id.0,
        )
        .await;
    world.wait_for(old.return_id, "refunded").await;
    assert_eq!(world.status(young.return_id).await.0, "initiated");
    running.stop().await;
}

/// A claim whose owner died: before the call, or after it.
async fn orphan(world: &World, paid: bool) -> shared::domain::transition::Filed {
    let filed = world.file(1).await;
    world.announce(&filed).await;
    // The deadline is far away, so no other process takes the attempt.
    let owner = Fake::with_keys(&[crate::harness::fake::Step::Hold]);
    let running = world
        .start(
            owner.clone(),
            &["--call-deadline-ms=60000", "--consumer-drain-secs=1"],
        )
        .await;
    until_true("the call is on its way", || !owner.submitted().is_empty()).await;
    let drain = running.stop().await;
    assert_eq!(drain, refund_consumer::app::Drain::LeftOpen(1));
    if paid {
        let key = ProviderKey(owner.submitted().remove(0));
        let amount = Money::new(
            "49.90".parse().expect("a decimal"),
            Currency::parse("EUR").expect("a code"),
        );
        world
            .simulated()
            .submit(&RefundRequest {
                key,
                amount,
                sent_before: 0,
            })
            .await
            .expect("paid");
    }
    world
        .execute(
            "UPDATE refunds SET gateway = 'simulated', call_deadline = UTC_TIMESTAMP(6), next_check_at = UTC_TIMESTAMP(6) \
             WHERE return_id = ?",
            filed.return_id.0,
        )
        .await;
    filed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_an_orphan_that_was_paid_is_found_and_settled() {
    let world = World::new().await;
    let filed = orphan(&world, true).await;
    let running = world.start(world.simulated(), &[]).await;
    world.wait_for(filed.return_id, "refunded").await;
    assert_eq!(world.audited(filed.return_id).await.len(), 4);
    let calls = |operation: &str| {
        running
            .metrics
            .gateway
            .seconds
            .with_label_values(&[operation])
            .get_sample_count()
    };
    assert_eq!((calls("find"), calls("submit")), (1, 0));
    assert_eq!(world.effects(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_an_orphan_that_was_not_paid_is_paid_under_its_key() {
    let world = World::new().await;
    let filed = orphan(&world, false).await;
    let running = world.start(world.simulated(), &[]).await;
    world.wait_for(filed.return_id, "refunded").await;
    assert_eq!(world.effects(), 1);
    let ledger = std::fs::read_to_string(world.ledger()).expect("the ledger");
    assert!(
        ledger.contains(&format!("refund-{}-1", filed.event_id)),
        "{ledger}"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_of_another_gateway_are_left_alone() {
    let world = World::new().await;
    let filed = orphan(&world, false).await;
    world
        .execute(
            "UPDATE refunds SET gateway = 'other' WHERE return_id = ?",
            filed.return_id.0,
        )
        .await;
    let running = world.start(world.simulated(), &[]).await;
    let plain = world.file(2).await;
    world.announce(&plain).await;
    world.wait_for(plain.return_id, "refunded").await;
    assert_eq!(world.status(filed.return_id).await.0, "refund_pending");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_inbox_rows_are_deleted_and_young_ones_kept() {
    let world = World::new().await;
    let group = world.group.clone();
    for days in [1_i64, 13, 15, 400] {
        sqlx::query(
            "INSERT INTO inbox VALUES (?, UUID_TO_BIN(UUID()), UTC_TIMESTAMP(6) - INTERVAL ? DAY)",
        )
        .bind(&group)
        .bind(days)
        .execute(&world.db.pool)
        .await
        .expect("an inbox row");
    }
    sqlx::query("INSERT INTO inbox VALUES ('its former name', UUID_TO_BIN(UUID()), UTC_TIMESTAMP(6) - INTERVAL 400 DAY)")
        .execute(&world.db.pool)
        .await
        .expect("a row of a consumer that was renamed");
    let running = world.start(world.simulated(), &[]).await;
    // If the first round fails, the next is a minute later.
    until(
        "the old rows are deleted",
        Duration::from_secs(90),
        || async { (world.count("SELECT COUNT(*) FROM inbox").await == 2).then_some(()) },
    )
    .await;
    let young = "SELECT COUNT(*) FROM inbox WHERE received_at > UTC_TIMESTAMP(6) - INTERVAL 14 DAY";
    assert_eq!(world.count(young).await, 2);
    running.stop().await;
}

/// A server without the attempt that we claimed is an old primary, and its list of earlier attempts proves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_earlier_attempts_are_believed_only_from_a_server_that_has_ours() {
    let world = World::new().await;
    let id = world.file(1).await.return_id;
    let owner = Uuid::now_v7();
    let later = AttemptId {
        return_id: id,
        number: 2,
    };
    let earlier = async || {
        let mut conn = world.db.pool.acquire().await.expect("a connection");
        let read = read_earlier(&mut conn, later, owner).await.expect("a read");
        read.map(|attempts| attempts.len())
    };
    let insert = "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, \
                  created_at, updated_at) VALUES (?, 1, 'first', 1, 'EUR', 'declined', NOW(6), NOW(6), NOW(6))";
    world.execute(insert, id.0).await;
    assert_eq!(earlier().await, None, "it does not know of attempt 2");
    let insert = "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, \
                  created_at, updated_at) VALUES (?, 2, 'second', 1, 'EUR', 'claimed', NOW(6), NOW(6), NOW(6))";
    world.execute(insert, id.0).await;
    assert_eq!(earlier().await, None, "another owner has it there");
    sqlx::query("UPDATE refunds SET owner = ? WHERE attempt = 2")
        .bind(&owner.as_bytes()[..])
        .execute(&world.db.pool)
        .await
        .expect("an owner");
    assert_eq!(earlier().await, Some(1));
}
