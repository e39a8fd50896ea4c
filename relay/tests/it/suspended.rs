//! A relay whose machine is suspended for longer than its lease. Its monotonic clock stands still meanwhile, so that it
//! alone cannot tell that its leases have ended.

use std::time::{Duration, Instant};

use shared::test_support::clock_shifts::{ClockShifts, Suspension};

use crate::harness::{Fixture, assert_history, history, until};
use crate::program::Program;

const LEASE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_relay_of_a_machine_that_slept_sends_nothing_under_its_old_lease() {
    wakes_and_sends_nothing_old(Suspension::Slept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_relay_of_a_machine_that_was_restored_sends_nothing_under_its_old_lease() {
    wakes_and_sends_nothing_old(Suspension::Restored).await;
}

/// Another relay owns all shards meanwhile and gives them up. So events that carry the first epoch can only come from a
/// relay that trusts its old lease; it acquires the shards again with the third.
async fn wakes_and_sends_nothing_old(suspension: Suspension) {
    let fixture = Fixture::create().await;
    let lease = format!("--lease-ms={}", LEASE.as_millis());
    let mut shifts = ClockShifts::new();
    let sleeper = Program::start_in(&fixture, &[&lease], &shifts.env()).await;
    let mut events = history(0..20, 2);
    fixture.insert_all(&events).await;
    fixture.outbox_is_empty().await;
    sleeper.freeze();
    let frozen = Instant::now();
    let successor = fixture.relay_under(&[&lease]).await;
    until("the successor owns all shards", || async {
        successor.metrics.owned_shards.get() == 16
    })
    .await;
    successor.stop().await;
    let written = history(1_000..1_200, 2);
    fixture.insert_all(&written).await;

    let slept = i64::try_from(frozen.elapsed().as_secs()).expect("seconds");
    shifts.set_back(slept, suspension);
    sleeper.thaw();
    fixture.outbox_is_empty().await;
    events.extend(written);
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&received, &events), 0);
    let old = received
        .iter()
        .filter(|record| record.return_id() >= 1_000 && record.epoch() == 1);
    assert_eq!(old.count(), 0, "sent under the lease that had ended");
    sleeper.kill_9().await;
}
