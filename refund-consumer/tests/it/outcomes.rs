use refund_consumer::gateway::RefundStatus;
use shared::domain::ids::ReturnId;
use shared::domain::transition::Filed;

use crate::harness::decisions::retry;
use crate::harness::fake::{Fake, Step};
use crate::harness::{Running, World, types, until, until_true};

async fn filed_and_announced(world: &World) -> Filed {
    let filed = world.file(1).await;
    world.announce(&filed).await;
    filed
}

async fn start(world: &World, gateway: &Fake) -> Running {
    world.start(gateway.clone(), &[]).await
}

fn key(filed: &Filed, attempt: i32) -> String {
    format!("refund-{}-{attempt}", filed.event_id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decline_ends_in_refund_failed() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[Step::Decline]));
    let running = start(&world, &gateway).await;
    let filed = filed_and_announced(&world).await;
    world.wait_for(filed.return_id, "refund_failed").await;
    let events = world.audited(filed.return_id).await;
    assert_eq!(types(&events)[3..], ["refund.failed"]);
    assert_eq!(events[3].data["code"], "card_expired");
    assert_eq!(world.attempt_state(filed.return_id, 1).await, "declined");
    assert_eq!(world.refunded_amount(filed.order_id).await, "0.0000");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_lost_answer_is_looked_up_not_paid_again() {
    for gateway in [
        Fake::with_keys(&[Step::PayUnheard]),
        Fake::without_keys(&[Step::PayUnheard]),
    ] {
        let world = World::new().await;
        let running = start(&world, &gateway).await;
        let filed = filed_and_announced(&world).await;
        world.wait_for(filed.return_id, "refunded").await;
        let events = world.audited(filed.return_id).await;
        assert_eq!(
            types(&events)[3..],
            ["refund.outcome_unknown", "refund.succeeded"]
        );
        assert_eq!(events[3].data["error"], "answer_lost");
        assert_eq!(
            events[4].trace_id,
            events[0]
                .trace_id
                .clone()
                .map(|_| events[3].trace_id.clone().expect("a trace"))
        );
        assert_eq!(gateway.submitted(), [key(&filed, 1)]);
        assert_eq!(gateway.effects(), [key(&filed, 1)]);
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_lost_request_is_sent_again_only_to_a_gateway_with_keys() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[Step::Lose]));
    let running = start(&world, &gateway).await;
    let filed = filed_and_announced(&world).await;
    world.wait_for(filed.return_id, "refunded").await;
    assert_eq!(gateway.submitted(), [key(&filed, 1), key(&filed, 1)]);
    assert_eq!(gateway.effects().len(), 1);
    running.stop().await;

    let (world, gateway) = (World::new().await, Fake::without_keys(&[Step::Lose]));
    let running = start(&world, &gateway).await;
    let filed = filed_and_announced(&world).await;
    until("it is parked", || async {
        parked(&world, filed.return_id).await
    })
    .await;
    assert_eq!(world.status(filed.return_id).await.0, "refund_pending");
    let events = world.audited(filed.return_id).await;
    assert_eq!(
        types(&events)[3..],
        ["refund.outcome_unknown", "refund.parked"]
    );
    assert_eq!(events[4].data["reason"], "not_found");
    assert_eq!(gateway.submitted().len(), 1);
    assert!(
        gateway.looked_up().len() > 1,
        "parked only after several look-ups"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_payment_that_cannot_be_found_is_repeated_under_its_key_with_one_effect() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[Step::PayUnheard]));
    gateway.find_is_blind();
    let running = start(&world, &gateway).await;
    let filed = filed_and_announced(&world).await;
    world.wait_for(filed.return_id, "refunded").await;
    assert_eq!(gateway.submitted(), [key(&filed, 1), key(&filed, 1)]);
    assert_eq!(gateway.effects().len(), 1);
    running.stop().await;
}

/// An attempt that was sent without a key must not be sent again with one: the provider could not see the repeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_an_attempt_sent_without_a_key_is_not_resent_once_keys_are_turned_on() {
    let (world, gateway) = (World::new().await, Fake::without_keys(&[Step::PayUnheard]));
    let flags = ["--lookup-backoff-ms=600000"];
    let before = world.start(gateway.clone(), &flags).await;
    let filed = filed_and_announced(&world).await;
    until("it is unknown", || async {
        let state = attempt_state(&world, filed.return_id).await?;
        (state == "unknown").then_some(())
    })
    .await;
    before.stop().await;
    let due = "UPDATE refunds SET next_check_at = UTC_TIMESTAMP(6) WHERE return_id = ?";
    world.execute(due, filed.return_id.0).await;

    gateway.turn_keys_on();
    gateway.find_is_blind();
    let after = start(&world, &gateway).await;
    let later = world.file(2).await;
    world.announce(&later).await;
    world.wait_for(later.return_id, "refunded").await;
    until("it is parked", || async {
        parked(&world, filed.return_id).await
    })
    .await;
    assert_eq!(gateway.submitted(), [key(&filed, 1), key(&later, 1)]);
    let with_key =
        "SELECT CAST(GROUP_CONCAT(sent_with_key ORDER BY return_id) AS CHAR) FROM refunds";
    let with_key: String = sqlx::query_scalar(with_key)
        .fetch_one(&world.db.pool)
        .await
        .expect("refunds");
    assert_eq!(with_key, "0,1");
    after.stop().await;
}

async fn parked(world: &World, id: ReturnId) -> Option<()> {
    let state: Option<String> = sqlx::query_scalar("SELECT state FROM refunds WHERE return_id = ?")
        .bind(id)
        .fetch_optional(&world.db.pool)
        .await
        .expect("refunds");
    (state.as_deref() == Some("parked")).then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_key_past_its_lifetime_is_not_sent_again() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[Step::Lose]));
    gateway.find_fails(true);
    let running = start(&world, &gateway).await;
    let filed = filed_and_announced(&world).await;
    until("it is unknown", || async {
        let state = attempt_state(&world, filed.return_id).await?;
        (state == "unknown").then_some(())
    })
    .await;
    world
        .execute("UPDATE refunds SET first_sent_at = first_sent_at - INTERVAL 24 HOUR WHERE return_id = ?", filed.return_id.0)
        .await;
    // A scan may have read the row before; the second look-up after that uses the row as it is now.
    let looked_up = gateway.looked_up().len();
    until_true("it is looked up again", || {
        gateway.looked_up().len() >= looked_up + 2
    })
    .await;
    gateway.find_fails(false);
    until("it is parked", || async {
        parked(&world, filed.return_id).await
    })
    .await;
    assert_eq!(gateway.submitted().len(), 1);
    running.stop().await;
}

async fn attempt_state(world: &World, id: ReturnId) -> Option<String> {
    sqlx::query_scalar("SELECT state FROM refunds WHERE return_id = ?")
        .bind(id)
        .fetch_optional(&world.db.pool)
        .await
        .expect("refunds")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_provider_is_retried_without_an_unknown_outcome() {
    for gateway in [
        Fake::with_keys(&[Step::Unreachable, Step::Unreachable]),
        Fake::without_keys(&[Step::Unreachable, Step::Unreachable]),
    ] {
        let world = World::new().await;
        let running = start(&world, &gateway).await;
        let filed = filed_and_announced(&world).await;
        world.wait_for(filed.return_id, "refunded").await;
        assert_eq!(world.audited(filed.return_id).await.len(), 4);
        assert_eq!(gateway.submitted().len(), 3);
        assert_eq!(gateway.effects().len(), 1);
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_that_the_provider_settles_later_is_polled_and_never_sent_again() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[Step::Pend]));
    let running = start(&world, &gateway).await;
    let filed = filed_and_announced(&world).await;
    until_true("it is polled", || {
        running
            .metrics
            .gateway
            .seconds
            .with_label_values(&["status"])
            .get_sample_count()
            > 1
    })
    .await;
    assert_eq!(world.attempt_state(filed.return_id, 1).await, "pending");
    assert_eq!(world.status(filed.return_id).await.0, "refund_pending");
    gateway.settle(&key(&filed, 1), RefundStatus::Succeeded);
    world.wait_for(filed.return_id, "refunded").await;
    assert_eq!(world.audited(filed.return_id).await.len(), 4);
    assert_eq!(gateway.submitted().len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_about_another_amount_is_left_to_a_person() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[Step::Mismatch]));
    let running = start(&world, &gateway).await;
    let filed = filed_and_announced(&world).await;
    until("it is parked", || async {
        parked(&world, filed.return_id).await
    })
    .await;
    let events = world.audited(filed.return_id).await;
    assert_eq!(
        types(&events)[3..],
        ["refund.outcome_unknown", "refund.parked"]
    );
    assert_eq!(events[4].data["reason"], "mismatched_amount");
    assert_eq!(world.refunded_amount(filed.order_id).await, "0.0000");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_paid_under_a_key_of_its_own() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[Step::Decline]));
    let running = start(&world, &gateway).await;
    let filed = filed_and_announced(&world).await;
    world.wait_for(filed.return_id, "refund_failed").await;
    retry(&world, &filed).await;
    world.wait_for(filed.return_id, "refunded").await;
    let events = world.audited(filed.return_id).await;
    assert_eq!(
        types(&events)[3..],
        ["refund.failed", "refund.retried", "refund.succeeded"]
    );
    assert_eq!(gateway.submitted(), [key(&filed, 1), key(&filed, 2)]);
    assert!(
        gateway.looked_up().contains(&key(&filed, 1)),
        "the declined attempt is looked up first"
    );
    assert_eq!(world.attempt_state(filed.return_id, 2).await, "succeeded");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_retry_is_not_paid_when_the_declined_attempt_paid_after_all() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[Step::Decline]));
    let running = start(&world, &gateway).await;
    let filed = filed_and_announced(&world).await;
    world.wait_for(filed.return_id, "refund_failed").await;
    gateway.settle(&key(&filed, 1), RefundStatus::Succeeded);
    retry(&world, &filed).await;
    world.wait_for(filed.return_id, "refunded").await;
    let events = world.audited(filed.return_id).await;
    assert_eq!(types(&events)[4..], ["refund.retried", "refund.found_paid"]);
    assert_eq!(world.attempt_state(filed.return_id, 1).await, "succeeded");
    assert_eq!(world.attempt_state(filed.return_id, 2).await, "void");
    assert_eq!(gateway.submitted(), [key(&filed, 1)]);
    assert_eq!(world.refunded_amount(filed.order_id).await, "49.9000");
    running.stop().await;
}
