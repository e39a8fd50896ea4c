//! A consumer without room takes no messages, and takes them again once it has room.

use crate::harness::fake::{Fake, Step};
use crate::harness::{World, until_true};

/// A partition keeps its pause while it is assigned to another consumer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_a_partition_that_comes_back_is_read() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[const { Step::Hold }; 30]);
    let flags = ["--initiated-grace-secs=3600", "--max-open-attempts=40"];
    let stays = world.start(gateway.clone(), &flags).await;
    for filed in world.file_all(1..=35, false).await {
        world.announce(&filed).await;
    }
    let is_paused = |paused: i64| stays.metrics.intake.paused.get() == paused;
    until_true("no room is left", || is_paused(1)).await;

    let leaves = world.start(gateway.clone(), &flags).await;
    let has_come = || leaves.metrics.work.rebalances.get() > 0;
    until_true("another consumer takes a partition", has_come).await;
    gateway.let_go();
    until_true("there is room again", || is_paused(0)).await;
    leaves.stop().await;

    // There is room for these: if the queue were full again, the consumer would pause and resume all partitions.
    let later = world.file_all(36..=45, false).await;
    for filed in &later {
        world.announce(filed).await;
    }
    for filed in &later {
        world.wait_for(filed.return_id, "refunded").await;
    }
    stays.stop().await;
}
