//! How far a consumer is behind, as it shows it itself.

use std::collections::BTreeMap;

use shared::domain::transition::Filed;
use shared::runtime::clock::unix_millis;

use crate::harness::fake::Fake;
use crate::harness::records::{Message, Sending};
use crate::harness::{Running, World, until_true};

const MESSAGES: &str = "refund_consumer_lag_messages";
const SECONDS: &str = "refund_consumer_lag_seconds";

/// Announces each return; returns the text of the labels of each partition, and how many records it got.
async fn announce(world: &World, filed: &[Filed], records: &mut BTreeMap<String, f64>) {
    for one in filed {
        let (partition, _) = world.announce(one).await;
        let topic = &world.topics.topic_returns;
        let labels = format!(r#"{{partition="{partition}",topic="{topic}"}}"#);
        *records.entry(labels).or_default() += 1.0;
    }
}

fn oldest(running: &Running) -> f64 {
    running.shown(SECONDS).into_values().fold(0.0, f64::max)
}

/// Its partitions are paused, so the client does not fetch, and does not notice by itself what arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_the_lag_of_a_consumer_that_takes_nothing_is_what_arrived_and_ends_when_it_was_claimed()
{
    let (world, gateway) = (World::new().await, Fake::with_keys(&[]));
    gateway.close(true);
    let flags = ["--initiated-grace-secs=3600"];
    let running = world.start(gateway.clone(), &flags).await;
    let idle = || running.shown(SECONDS).len() == 2 && oldest(&running) == 0.0;
    until_true("it has both partitions, and nothing waits", idle).await;

    let mut records = BTreeMap::new();
    announce(&world, &world.file_all(1..=30, false).await, &mut records).await;
    let paused = || running.metrics.intake.paused.get() == 1;
    until_true("it has paused", paused).await;
    announce(&world, &world.file_all(31..=40, false).await, &mut records).await;
    until_true("every record counts", || running.shown(MESSAGES) == records).await;
    until_true("the oldest is some seconds old", || oldest(&running) > 2.0).await;
    let before = oldest(&running);
    until_true("its age grows", || oldest(&running) > before + 1.0).await;

    gateway.close(false);
    let caught_up = || running.total(MESSAGES) == 0.0 && oldest(&running) == 0.0;
    until_true("nothing waits any more", caught_up).await;
    assert_eq!(running.messages("claimed"), 40);
    running.stop().await;
}

/// The age is the record's own: a consumer that has just started knows how long it has waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_consumer_that_starts_knows_how_old_the_first_record_is() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[]));
    let first = world.start(gateway.clone(), &[]).await;
    let filed = world.file_all(1..=10, false).await;
    announce(&world, &filed, &mut BTreeMap::new()).await;
    for one in &filed {
        world.wait_for(one.return_id, "refunded").await;
    }
    first.stop().await;
    // The same records are no work any more, so only the new one counts.
    let waits = world.file(11).await;
    let an_hour_ago = Sending {
        message: Message::relay(&world.first_event(&waits).await),
        partition: None,
        time_ms: Some(unix_millis() - 3_600_000),
    };
    world.send_all(&[an_hour_ago]).await;
    gateway.close(true);
    let second = world
        .start(gateway.clone(), &["--initiated-grace-secs=3600"])
        .await;
    until_true("it waits for an hour", || oldest(&second) > 3_599.0).await;
    until_true("nothing else waits", || second.total(MESSAGES) == 1.0).await;
    gateway.close(false);
    world.wait_for(waits.return_id, "refunded").await;
    until_true("nothing waits", || oldest(&second) == 0.0).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_partition_that_another_consumer_has_is_not_shown() {
    let (world, gateway) = (World::new().await, Fake::with_keys(&[]));
    let stays = world.start(gateway.clone(), &[]).await;
    until_true("it has both", || stays.shown(SECONDS).len() == 2).await;
    let leaves = world.start(gateway, &[]).await;
    let one_each = || {
        let both = stays.shown(MESSAGES).into_iter();
        let both: BTreeMap<String, f64> = both.chain(leaves.shown(MESSAGES)).collect();
        both.len() == 2 && stays.shown(SECONDS).len() == 1 && leaves.shown(SECONDS).len() == 1
    };
    until_true("each has one", one_each).await;
    leaves.stop().await;
    until_true("it has both again", || stays.shown(MESSAGES).len() == 2).await;
    stays.stop().await;
}
