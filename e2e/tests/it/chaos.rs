//! The short form of `make chaos`.

use std::time::Duration;

use e2e::chaos::{self, Plan};

#[tokio::test(flavor = "multi_thread")]
async fn p2_p3_p4_relays_that_are_killed_frozen_and_stopped_lose_nothing_and_keep_the_order() {
    let plan = Plan {
        relays: 3,
        writers: 4,
        returns: 1_000,
        events: 40_000,
        events_per_second: 2_000,
        take_overs: 5,
        every: Duration::from_millis(3_500),
        lease: Duration::from_secs(4),
        // `make chaos` allows one second for each. Here it is enough that no relay waits for the lease of one that stopped.
        spare: Duration::from_secs(10),
        hand_over: Duration::from_secs(3),
    };
    let findings = chaos::run(&plan, |line| eprintln!("{line}"))
        .await
        .expect("every promise held");
    eprintln!("{findings:?}");
}
