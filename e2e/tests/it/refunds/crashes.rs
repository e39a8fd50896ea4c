//! Consumers are killed, start and stop while they pay refunds through a provider.

use std::time::Duration;

use anyhow::ensure;
use e2e::refund_chaos::{self, Disruption, Plan};

/// The long forms, with 5,000 returns and 20 deaths at each step, are `make chaos-refunds`.
#[tokio::test]
async fn p5_p7_p8_consumers_that_are_killed_pay_each_return_once() -> anyhow::Result<()> {
    let plan = Plan {
        returns: 400,
        disruption: Disruption::KillAtRandom {
            kills: 3,
            every: Duration::from_secs(4),
        },
        gateway: vec!["--delay-ms=500".to_owned()],
        settings: Vec::new(),
        seed: rand::random(),
    };
    let found = refund_chaos::run(&plan, |line| eprintln!("{line}")).await?;
    ensure!(
        found.taken_over > 0,
        "no consumer died during a call: {found:?}"
    );
    Ok(())
}

#[tokio::test]
async fn p5_p8_a_storm_of_rebalances_loses_and_doubles_no_refund() -> anyhow::Result<()> {
    let plan = Plan {
        returns: 1_200,
        disruption: Disruption::Storm {
            lasts: Duration::from_secs(24),
            every: Duration::from_secs(3),
        },
        gateway: vec!["--delay-ms=50".to_owned()],
        settings: Vec::new(),
        seed: rand::random(),
    };
    let found = refund_chaos::run(&plan, |line| eprintln!("{line}")).await?;
    ensure!(
        found.rebalances >= u64::try_from(found.changes)?,
        "too few rebalances: {found:?}"
    );
    Ok(())
}
