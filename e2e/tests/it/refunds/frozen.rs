//! A consumer is frozen beyond its deadline; the group rebalances, or a consumer dies, during calls.

use std::time::Duration;

use anyhow::ensure;
use e2e::program::Program;
use e2e::provider::{self, Provider};
use e2e::system::System;
use e2e::{ledger, until};

use super::{file, nothing_is_wrong, quick};

const DEADLINE: Duration = Duration::from_secs(180);
const SETTLEMENTS: &str = "refund_consumer_settlements_total";

async fn paid(system: &System, payments: usize) -> anyhow::Result<()> {
    until("the provider has paid", DEADLINE, async || {
        Ok(ledger::effects(&system.ledger)?.len() == payments)
    })
    .await
}

#[tokio::test]
async fn p5_p7_a_success_that_wakes_after_the_return_was_settled_changes_nothing()
-> anyhow::Result<()> {
    sleeps_with_an_answer(&[], "refunded").await
}

#[tokio::test]
async fn p5_p7_a_decline_that_wakes_after_the_return_was_settled_changes_nothing()
-> anyhow::Result<()> {
    sleeps_with_an_answer(&["decline"], "refund_failed").await
}

/// A consumer is frozen after the response and before it settles. Another one settles. The first one wakes.
async fn sleeps_with_an_answer(script: &[&str], ends: &str) -> anyhow::Result<()> {
    /// Longer than the time up to the freeze. It passes while the process is frozen, too.
    const HELD: &str = "consumer.before_settle=1*sleep(10000)";
    let mut system = quick().await?;
    let provider = Provider::start(&mut system, &[]).await?;
    let id = file(&system, 1, 1).await?[0];
    let key = provider::key(&system, id, 1).await?;
    provider.script(&key, script, &[]).await?;
    // The kill point blocks one thread; the others serve the metrics.
    let held = [("FAILPOINTS", HELD), ("TOKIO_WORKER_THREADS", "4")];
    let sleeper = system.start_with("refund-consumer", &held).await?;
    until("the answer is here", DEADLINE, async || {
        let calls = sleeper
            .metric_if_any(r#"refund_consumer_gateway_calls_total{result="answered"}"#)
            .await?;
        Ok(calls == Some(1))
    })
    .await?;
    sleeper.freeze()?;
    let unsettled = "SELECT COUNT(*) FROM refunds WHERE state = 'claimed' AND owner IS NOT NULL";
    ensure!(
        system.count(unsettled).await? == 1,
        "frozen before it settled"
    );
    let relay = system.start("outbox-relay").await?;
    let _successor = system.start("refund-consumer").await?;
    until("the successor has settled it", DEADLINE, async || {
        let status: String = sqlx::query_scalar("SELECT status FROM returns")
            .fetch_one(&system.db.pool)
            .await?;
        Ok(status == ends && system.count("SELECT COUNT(*) FROM outbox").await? == 0)
    })
    .await?;
    relay.stop(DEADLINE).await?;
    let before = rows(&system).await?;
    sleeper.thaw()?;
    says(&sleeper, "agreed", 1).await?;
    let after = rows(&system).await?;
    ensure!(before == after, "changed: {before:?} to {after:?}");
    nothing_is_wrong(&system).await
}

/// Waits until it has settled `count` late outcomes, all with this result.
async fn says(sleeper: &Program, result: &str, count: u64) -> anyhow::Result<()> {
    let named = |result| format!(r#"{SETTLEMENTS}{{result="{result}"}}"#);
    let findings = async || -> anyhow::Result<u64> {
        let tries = sleeper.metric(SETTLEMENTS).await?;
        // Its own intake may find the same returns and count them again.
        let held = sleeper.metric(&named("held")).await?;
        Ok(tries.saturating_sub(held))
    };
    until("it has reported every outcome", DEADLINE, async || {
        Ok(findings().await? >= count)
    })
    .await?;
    let (all, these) = (findings().await?, sleeper.metric(&named(result)).await?);
    ensure!(
        (these, all) == (count, count),
        "{these} of {all} were {result}"
    );
    Ok(())
}

/// A checksum over all rows that a settlement may write.
async fn rows(system: &System) -> anyhow::Result<Vec<(String, Option<i64>)>> {
    let sums = "CHECKSUM TABLE returns, refunds, orders, return_events, outbox EXTENDED";
    Ok(sqlx::query_as(sums).fetch_all(&system.db.pool).await?)
}

/// It is frozen after the payment and before the response. The deadlines of its calls pass meanwhile, so it wakes without an
/// outcome.
#[tokio::test]
async fn p5_p7_a_consumer_that_sleeps_through_its_calls_changes_nothing_when_it_wakes()
-> anyhow::Result<()> {
    const RETURNS: usize = 20;
    let mut system = quick().await?;
    system
        .env
        .insert("GATEWAY_CALL_TIMEOUT_MS".to_owned(), "1900".to_owned());
    // No response may arrive meanwhile: whether it or the timeout would win is random.
    let provider = Provider::start(&mut system, &["--hang-ms=120000"]).await?;
    for id in file(&system, 1, RETURNS).await? {
        let key = provider::key(&system, id, 1).await?;
        provider.script(&key, &["timeout-after"], &[]).await?;
    }
    let sleeper = system.start("refund-consumer").await?;
    paid(&system, RETURNS).await?;
    sleeper.freeze()?;
    let unsettled = system
        .count("SELECT COUNT(*) FROM refunds WHERE state = 'claimed'")
        .await?;
    ensure!(
        unsettled == i64::try_from(RETURNS)?,
        "frozen before it settled: {unsettled}"
    );
    let relay = system.start("outbox-relay").await?;
    let _successor = system.start("refund-consumer").await?;
    system.settled(DEADLINE).await?;
    relay.stop(DEADLINE).await?;
    let before = rows(&system).await?;
    sleeper.thaw()?;
    // The outcome "unknown" counts only if it comes from the present owner.
    says(&sleeper, "not_owner", u64::try_from(RETURNS)?).await?;
    let after = rows(&system).await?;
    ensure!(before == after, "changed: {before:?} to {after:?}");
    nothing_is_wrong(&system).await
}

const REBALANCES: &str = "refund_consumer_rebalances_total";
const OPEN: &str = "refund_consumer_open_attempts";

/// Without idempotency keys no attempt may be sent twice, whichever consumer dies or gets the partition meanwhile.
#[tokio::test]
async fn p5_without_keys_a_rebalance_and_a_kill_in_the_middle_of_a_call_pay_once()
-> anyhow::Result<()> {
    let mut system = quick().await?;
    for (name, value) in [
        ("CALL_DEADLINE_MS", "8000"),
        ("GATEWAY_CALL_TIMEOUT_MS", "7000"),
        // Only the owner of the partition claims a return, not the scan.
        ("INITIATED_GRACE_SECS", "3600"),
    ] {
        system.env.insert(name.to_owned(), value.to_owned());
    }
    let flags = ["--no-idempotency-keys", "--delay-ms=5000"];
    let _provider = Provider::start(&mut system, &flags).await?;
    let _relay = system.start("outbox-relay").await?;
    let first = system.start("refund-consumer").await?;
    let mut filed = 0;
    until("calls are under way", DEADLINE, async || {
        trickle(&system, &mut filed).await?;
        Ok(first.metric(OPEN).await? > 0)
    })
    .await?;
    let alone = first.metric(REBALANCES).await?;
    let second = system.start("refund-consumer").await?;
    until("partitions moved during calls", DEADLINE, async || {
        trickle(&system, &mut filed).await?;
        let moved = first.metric(REBALANCES).await? > alone && second.metric(REBALANCES).await? > 0;
        ensure!(first.metric(OPEN).await? > 0, "no call was under way");
        Ok(moved)
    })
    .await?;
    until("both have calls under way", DEADLINE, async || {
        trickle(&system, &mut filed).await?;
        Ok(first.metric(OPEN).await? > 0 && second.metric(OPEN).await? > 0)
    })
    .await?;
    first.kill().await?;
    // An attempt that was marked as sent when the consumer died is parked: without keys only a person can find out.
    system.settled_or_parked(DEADLINE).await?;
    let lines = ledger::lines(&system.ledger)?;
    ensure!(lines.values().all(|count| *count == 1), "{lines:?}");
    eprintln!("{filed} returns, {} payments", lines.len());
    nothing_is_wrong(&system).await
}

/// Calls take 5 s and five begin each second, so that some are always under way.
async fn trickle(system: &System, filed: &mut i64) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_millis(200);
    *filed += 1;
    file(system, *filed, 1).await?;
    tokio::time::sleep(PAUSE).await;
    Ok(())
}
