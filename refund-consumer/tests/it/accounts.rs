//! A consumer that calls another account at the provider than the consumer before it.

use crate::harness::decisions::{mark_not_paid, retry};
use crate::harness::fake::{Fake, Step};
use crate::harness::{World, until, until_true};

const FIRST: &str = "first-account";
const SECOND: &str = "second-account";

/// A declined attempt may have paid after all, and the second account cannot know it. People ask the first account, and say
/// so; then the retry is paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_retry_at_another_account_waits_until_people_say_that_nothing_was_paid() {
    let world = World::new().await;
    let first = Fake::of_account(FIRST, &[Step::Decline]);
    let running = world.start(first.clone(), &[]).await;
    let filed = world.file(1).await;
    world.announce(&filed).await;
    world.wait_for(filed.return_id, "refund_failed").await;
    running.stop().await;

    let second = Fake::of_account(SECOND, &[]);
    let running = world.start(second.clone(), &[]).await;
    retry(&world, &filed).await;
    until("it waits for a person", || async {
        let state = world.attempt_state(filed.return_id, 2).await;
        (state == "parked").then_some(())
    })
    .await;
    let events = world.audited(filed.return_id).await;
    let last = events.last().expect("an event");
    assert_eq!(last.data["reason"], "earlier_attempt_elsewhere");
    assert!(second.submitted().is_empty(), "it may have been paid");

    mark_not_paid(&world, &filed).await;
    retry(&world, &filed).await;
    world.wait_for(filed.return_id, "refunded").await;
    assert_eq!(second.effects(), [format!("refund-{}-3", filed.event_id)]);
    running.stop().await;
}

/// The first consumer stops while one call is under way and another attempt waits for its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_only_what_was_never_sent_may_go_to_another_account() {
    let world = World::new().await;
    let first = Fake::of_account(FIRST, &[Step::Hold]);
    let filed = world.file_all(1..=2, false).await;
    let flags = [
        "--gateway-parallel-calls=1",
        "--initiated-grace-secs=0",
        "--consumer-drain-secs=1",
        "--call-deadline-ms=2000",
    ];
    let running = world.start(first.clone(), &flags).await;
    until_true("both are claimed, one is called for", || {
        first.submitted().len() == 1 && running.metrics.intake.open_attempts.get() == 2
    })
    .await;
    running.stop().await;
    let sent = first.submitted().remove(0);

    let second = Fake::of_account(SECOND, &[]);
    let running = world.start(second.clone(), &[]).await;
    let key = |at: usize| format!("refund-{}-1", filed[at].event_id);
    let (held, free) = if sent == key(0) { (0, 1) } else { (1, 0) };
    world.wait_for(filed[free].return_id, "refunded").await;
    // Whether the first consumer has written that the outcome is unknown before it stopped is random.
    let foreign = || {
        let states = &running.metrics.rows.foreign_attempts;
        let count = |state| states.with_label_values(&[state]).get();
        count("claimed") + count("unknown")
    };
    until_true("the other is counted", || foreign() == 1).await;
    assert_eq!(second.effects(), [key(free)]);
    assert!(!second.looked_up().contains(&sent), "it is left alone");
    assert_eq!(
        world.status(filed[held].return_id).await.0,
        "refund_pending"
    );

    let again = world.start(first.clone(), &[]).await;
    world.wait_for(filed[held].return_id, "refunded").await;
    assert_eq!(first.effects(), [key(held)]);
    until_true("nothing is left alone", || foreign() == 0).await;
    running.stop().await;
    again.stop().await;
}
