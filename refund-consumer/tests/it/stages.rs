//! How long a refund takes, by stage, is observed once for each return.

use std::collections::BTreeMap;

use crate::harness::fake::{Fake, Step};
use crate::harness::{Running, World, until, until_true};

const STAGES: &str = "refund_consumer_stage_seconds_count";
const WHOLE: &str = "refund_consumer_filing_to_refunded_seconds_count";

/// The stages in the order of the way.
fn observed(running: &Running) -> [f64; 4] {
    let shown: BTreeMap<String, f64> = running.shown(STAGES);
    ["broker", "claim", "gateway", "settle"].map(|stage| shown[&format!(r#"{{stage="{stage}"}}"#)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_stage_of_a_refund_is_observed_once() {
    let world = World::new().await;
    let running = world.start(world.simulated(), &[]).await;
    assert_eq!(observed(&running), [0.0; 4], "the series are there");
    let filed = world.file_all(1..=5, false).await;
    for one in &filed {
        world.announce(one).await;
    }
    let all = || observed(&running) == [5.0; 4] && running.total(WHOLE) == 5.0;
    until_true("each is observed", all).await;
    for one in &filed {
        world.announce(one).await;
    }
    let again = || running.messages("duplicate") == 5;
    until_true("the records have come again", again).await;
    assert!(all(), "{:?}", observed(&running));
    running.stop().await;
}

/// A return that was filed two days ago and whose record was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_return_that_a_scan_found_has_no_record_to_wait_for() {
    let world = World::new().await;
    world.file_days_ago(2, 1..=1, |_| false).await;
    let running = world.start(world.simulated(), &[]).await;
    let whole = || running.total(WHOLE) == 1.0;
    until_true("it is refunded", whole).await;
    let settled = || observed(&running) == [0.0, 0.0, 1.0, 1.0];
    until_true("its payment is observed", settled).await;
    let seconds = running.total("refund_consumer_filing_to_refunded_seconds_sum");
    assert!((172_800.0..173_400.0).contains(&seconds), "{seconds}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_at_the_gateway_ends_with_the_final_answer() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[Step::PayUnheard]);
    gateway.find_fails(true);
    let running = world
        .start(gateway.clone(), &["--call-deadline-ms=2000"])
        .await;
    let filed = world.file(1).await;
    world.announce(&filed).await;
    until("its outcome is unknown", || async {
        let unknown = world.count("SELECT COUNT(*) FROM refunds WHERE state = 'unknown'");
        (unknown.await == 1).then_some(())
    })
    .await;
    assert_eq!(observed(&running), [1.0, 1.0, 0.0, 0.0]);
    gateway.find_fails(false);
    let known = || observed(&running) == [1.0; 4] && running.total(WHOLE) == 1.0;
    until_true("the look-up finds it", known).await;
    let sum = running.shown("refund_consumer_stage_seconds_sum");
    let at_the_gateway = sum[r#"{stage="gateway"}"#];
    assert!(
        at_the_gateway > 0.05,
        "the pause before the look-up: {at_the_gateway}"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declined_refund_has_its_stages_and_is_not_refunded() {
    let world = World::new().await;
    let running = world.start(Fake::with_keys(&[Step::Decline]), &[]).await;
    world.announce(&world.file(1).await).await;
    until_true("it is settled", || observed(&running) == [1.0; 4]).await;
    assert_eq!(running.total(WHOLE), 0.0);
    running.stop().await;
}
