//! The consumer comes back with another account at the provider, while attempts at the first one are open.

use std::time::Duration;

use anyhow::ensure;
use e2e::program::run;
use e2e::provider::{self, Provider};
use e2e::system::System;
use e2e::{ledger, until};
use shared::test_support::long_form;

use super::{file, nothing_is_wrong, quick};

const DEADLINE: Duration = Duration::from_secs(180);
const FIRST: &str = "shop-eu";
const SECOND: &str = "shop-us";
const FOREIGN: &str = "refund_consumer_foreign_attempts";

async fn first(system: &mut System, flags: &[&str]) -> anyhow::Result<Provider> {
    let ledger = system.ledger.clone();
    Provider::start_account(system, FIRST, &ledger, flags).await
}

async fn second(system: &mut System, flags: &[&str]) -> anyhow::Result<Provider> {
    let ledger = system.ledger_of(SECOND);
    Provider::start_account(system, SECOND, &ledger, flags).await
}

/// The first account has paid, and its response was lost. The second one knows nothing of it and would pay again.
#[tokio::test]
async fn p5_an_attempt_of_another_account_is_left_alone_and_reported() -> anyhow::Result<()> {
    let mut system = quick().await?;
    let account = first(&mut system, &["--hang-ms=60000"]).await?;
    let id = file(&system, 1, 1).await?[0];
    let key = provider::key(&system, id, 1).await?;
    account.script(&key, &["timeout-after"], &[]).await?;
    let _relay = system.start("outbox-relay").await?;
    let consumer = system.start("refund-consumer").await?;
    until("the first account has paid", DEADLINE, async || {
        Ok(ledger::effects(&system.ledger)?.len() == 1)
    })
    .await?;
    consumer.kill().await?;

    let _other = second(&mut system, &[]).await?;
    let consumer = system.start("refund-consumer").await?;
    until("it is left alone, or paid again", DEADLINE, async || {
        let left_alone = consumer.metric_if_any(FOREIGN).await? == Some(1);
        Ok(left_alone || system.ledger_of(SECOND).metadata()?.len() > 0)
    })
    .await?;
    let (one, two) = paid_by_each(&system)?;
    ensure!(
        two.is_empty(),
        "paid by the first account: {one:?}, and by the second: {two:?}"
    );
    let shown = run(
        "returnsctl",
        &["refunds", "show", &id.to_string()],
        &system.env,
    )
    .await?;
    ensure!(shown.contains(FIRST), "{shown}");
    consumer.stop(DEADLINE).await?;

    account.be_called(&mut system);
    let consumer = system.start("refund-consumer").await?;
    system.settled(DEADLINE).await?;
    until("nothing is left alone", DEADLINE, async || {
        Ok(consumer.metric(FOREIGN).await? == 0)
    })
    .await?;
    nothing_is_wrong(&system).await
}

fn paid_by_each(system: &System) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let paid = |path: &std::path::Path| -> anyhow::Result<Vec<String>> {
        let mut keys: Vec<String> = ledger::effects(path)?.into_keys().collect();
        keys.sort_unstable();
        Ok(keys)
    };
    Ok((paid(&system.ledger)?, paid(&system.ledger_of(SECOND))?))
}

/// Three in ten responses of the first account are lost. Its consumer is killed in the middle of the load and comes back
/// with the second account, while more returns are filed.
#[tokio::test]
async fn p5_under_load_no_account_pays_what_another_may_have_paid() -> anyhow::Result<()> {
    let returns = usize::try_from(long_form("ACCOUNTS_RETURNS", 120))?;
    let mut system = quick().await?;
    let flags = [
        "--fault=timeout-after=0.3",
        "--hang-ms=60000",
        "--delay-ms=50",
    ];
    let account = first(&mut system, &flags).await?;
    let _relay = system.start("outbox-relay").await?;
    let consumer = system.start("refund-consumer").await?;
    file(&system, 1, returns / 2).await?;
    until("the first account has paid some", DEADLINE, async || {
        Ok(ledger::effects(&system.ledger)?.len() >= returns / 4)
    })
    .await?;
    consumer.kill().await?;

    let _other = second(
        &mut system,
        &["--fault=timeout-after=0.1", "--hang-ms=2000"],
    )
    .await?;
    let consumer = system.start("refund-consumer").await?;
    let next_order = i64::try_from(returns / 2)? + 1;
    file(&system, next_order, returns - returns / 2).await?;
    until("all others are refunded", DEADLINE, async || {
        let open = "SELECT COUNT(*) FROM returns r WHERE status <> 'refunded' AND NOT EXISTS (SELECT 1 FROM refunds f \
                    WHERE f.return_id = r.id AND f.gateway = 'shop-eu')";
        Ok(system.count(open).await? == 0)
    })
    .await?;
    let foreign = "SELECT COUNT(*) FROM refunds WHERE gateway = 'shop-eu' AND state <> 'succeeded'";
    let foreign = u64::try_from(system.count(foreign).await?)?;
    until("those left alone are counted", DEADLINE, async || {
        Ok(consumer.metric(FOREIGN).await? == foreign)
    })
    .await?;
    let (one, two) = paid_by_each(&system)?;
    eprintln!(
        "{returns} returns, {foreign} left alone, paid {} and {}",
        one.len(),
        two.len()
    );
    ensure!(foreign > 0, "the consumer died in the middle of its work");
    ensure!(
        one.iter().all(|key| !two.contains(key)),
        "paid twice: {one:?} {two:?}"
    );
    consumer.stop(DEADLINE).await?;

    account.be_called(&mut system);
    let _consumer = system.start("refund-consumer").await?;
    system.settled(DEADLINE).await?;
    nothing_is_wrong(&system).await
}
