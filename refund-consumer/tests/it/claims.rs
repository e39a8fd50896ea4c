use serde_json::json;

use crate::harness::{World, types, until_true};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_return_that_is_no_longer_eligible_is_rejected_with_every_reason() {
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
    assert_eq!(
        events[1].data["reasons"],
        json!(["order_not_delivered", "already_refunded"])
    );
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

/// Delivered 30 days before the filing and filed 31 days ago, as after an outage of the consumers: the window has ended
/// since, but not before the filing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_after_an_outage_of_31_days_the_window_counts_as_of_the_filing() {
    let world = World::new().await;
    let filed = world.file_days_ago(31, 1..=2, |_| false).await;
    let [announced, lost] = filed.as_slice() else {
        unreachable!("two were filed")
    };
    world.announce(announced).await;
    let running = world.start(world.simulated(), &[]).await;
    for one in [announced, lost] {
        world.wait_for(one.return_id, "refunded").await;
        let events = world.audited(one.return_id).await;
        assert_eq!(events.len(), 4, "{:?}", types(&events));
    }
    assert_eq!(world.effects(), 2);
    running.stop().await;
}

/// A microsecond more would have been too late on the day of the filing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_a_return_filed_too_late_is_still_too_late() {
    let world = World::new().await;
    let filed = world.file_days_ago(31, 1..=1, |_| false).await[0];
    world
        .execute(
            "UPDATE orders SET delivered_at = delivered_at - INTERVAL 1 MICROSECOND WHERE id = ?",
            1,
        )
        .await;
    let running = world.start(world.simulated(), &[]).await;
    world.wait_for(filed.return_id, "rejected").await;
    assert_eq!(
        world.audited(filed.return_id).await[1].data["reasons"],
        json!(["window_expired"])
    );
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
