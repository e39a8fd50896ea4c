use serde_json::json;

use crate::harness::fake::Fake;
use crate::harness::{World, types, until, until_true};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_return_whose_order_was_refunded_elsewhere_is_rejected() {
    let world = World::new().await;
    let filed = world.file(1).await;
    world
        .execute(
            "UPDATE orders SET status = 'shipped', refunded_amount = total WHERE id = ?",
            1,
        )
        .await;
    let running = world.start(world.simulated(), &[]).await;
    world.announce(&filed).await;
    world.wait_for(filed.return_id, "rejected").await;
    let events = world.audited(filed.return_id).await;
    assert_eq!(types(&events), ["return.initiated", "return.rejected"]);
    assert_eq!(events[1].data["reasons"], json!(["already_refunded"]));
    assert_eq!(events[1].actor.0, "system");
    until_true("it is counted", || running.messages("rejected") == 1).await;
    assert_eq!(world.effects(), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_return_is_not_paid_if_less_is_left_than_was_promised_at_filing() {
    let world = World::new().await;
    let filed = world.file(1).await;
    world
        .execute("UPDATE orders SET refunded_amount = 0.01 WHERE id = ?", 1)
        .await;
    let running = world.start(world.simulated(), &[]).await;
    world.announce(&filed).await;
    world.wait_for(filed.return_id, "rejected").await;
    assert_eq!(
        world.audited(filed.return_id).await[1].data["reasons"],
        json!(["already_refunded"])
    );
    assert_eq!(world.effects(), 0);
    running.stop().await;
}

/// It was accepted with 201. The api may have had a longer window than programs know today, the consumers may have been away
/// for a month, and the shop may have moved the order on because of the return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_what_was_decided_at_filing_is_not_decided_again() {
    let world = World::new().await;
    let old = world.file_days_ago(31, 1..=2, |_| false).await;
    let [announced, lost] = old.as_slice() else {
        unreachable!("two were filed")
    };
    let late = world.file(3).await;
    world
        .execute(
            "UPDATE orders SET delivered_at = delivered_at - INTERVAL 90 DAY WHERE id = ?",
            3,
        )
        .await;
    let moved_on = world.file(4).await;
    world
        .execute(
            "UPDATE orders SET status = 'return_expected', delivered_at = NULL WHERE id = ?",
            4,
        )
        .await;
    for one in [announced, &late, &moved_on] {
        world.announce(one).await;
    }
    let running = world.start(world.simulated(), &[]).await;
    for one in [announced, lost, &late, &moved_on] {
        world.wait_for(one.return_id, "refunded").await;
        let events = world.audited(one.return_id).await;
        assert_eq!(events.len(), 4, "{:?}", types(&events));
    }
    assert_eq!(world.effects(), 4);
    running.stop().await;
}

/// Filed by a version that did not check the currency, or rewritten by the shop since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_return_whose_currency_cannot_express_its_amount_is_rejected() {
    let world = World::new().await;
    let filed = world.file_all(1..=3, false).await;
    for sql in [
        "UPDATE returns SET refund_amount = 49.895 WHERE order_id = ?",
        "UPDATE returns SET currency = 'JPY' WHERE order_id = ? + 1",
        "UPDATE orders SET currency = 'eur' WHERE id = ? + 2",
    ] {
        world.execute(sql, 1).await;
    }
    let running = world.start(world.simulated(), &[]).await;
    for one in &filed {
        world.announce(one).await;
    }
    for one in &filed {
        world.wait_for(one.return_id, "rejected").await;
        let events = world.audited(one.return_id).await;
        assert_eq!(events[1].data["reasons"], json!(["amount_not_payable"]));
    }
    assert_eq!(world.effects(), 0);
    running.stop().await;
}

/// Claimed by a version that did not check it: nothing is sent that the provider would have to round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_an_attempt_whose_amount_cannot_be_paid_waits_for_a_person() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[]));
    let filed = world.file(1).await;
    for sql in [
        "UPDATE returns SET status = 'refund_pending', refund_amount = 49.895 WHERE id = ?",
        "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, created_at, \
         updated_at) VALUES (?, 1, 'k', 49.895, 'EUR', 'claimed', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
    ] {
        world.execute(sql, filed.return_id.0).await;
    }
    let running = world.start(gateway.clone(), &[]).await;
    until("it is parked", || async {
        world.attempt_state(filed.return_id, 1).await == "parked"
    })
    .await;
    let why = "SELECT COUNT(*) FROM refunds WHERE last_error = 'amount_not_payable'";
    assert_eq!(world.count(why).await, 1);
    assert_eq!(gateway.submitted(), [""; 0]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_return_that_needs_review_waits_for_it_and_is_paid_once_approved() {
    let world = World::new().await;
    let filed = world.file_with(1, true).await;
    let running = world
        .start(world.simulated(), &["--initiated-grace-secs=0"])
        .await;
    world.announce(&filed).await;
    until_true("the message is taken", || {
        running.messages("awaits_review") == 1
    })
    .await;
    let plain = world.file(2).await;
    // When a scan has claimed this one, it has also passed the other one.
    world.wait_for(plain.return_id, "refunded").await;
    assert_eq!(
        world.status(filed.return_id).await,
        ("initiated".to_owned(), 1)
    );

    approve(&world, filed.return_id).await;
    world.wait_for(filed.return_id, "refunded").await;
    let events = world.audited(filed.return_id).await;
    assert_eq!(
        types(&events),
        [
            "return.initiated",
            "return.approved",
            "refund.requested",
            "refund.succeeded"
        ]
    );
    assert_eq!(events[1].actor.0, "admin");
    running.stop().await;
}

/// Approves the return as the api does for an admin.
pub(crate) async fn approve(world: &World, id: shared::domain::ids::ReturnId) {
    use shared::domain::actor::{Actor, ActorType};
    use shared::domain::transition::{self, Cause, Change};
    let mut tx = world.db.pool.begin().await.expect("begin");
    let mut locked = transition::lock(&mut tx, &[id]).await.expect("lock");
    let change = Change {
        return_id: id,
        action: shared::domain::status::Action::Approve,
        cause: Cause {
            actor: Actor {
                kind: ActorType::Admin,
                id: "7".to_owned(),
            },
            request_id: None,
            trace: shared::domain::trace_context::TraceContext::new_root(),
        },
        detail: serde_json::Map::new(),
    };
    transition::apply(&mut tx, &mut locked, &world.topics, &[change])
        .await
        .expect("apply");
    tx.commit().await.expect("commit");
}
