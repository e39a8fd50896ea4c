//! An operator decides with `returnsctl refunds` while consumer, relay and provider run.

use std::collections::HashMap;

use anyhow::ensure;
use e2e::ledger;
use e2e::operator;
use e2e::program::{Env, run};
use e2e::provider::{self, Provider};
use e2e::system::System;
use serde_json::Value;
use shared::domain::ids::ReturnId;

use super::faults::{EACH, all_stand};
use super::{file, nothing_is_wrong, quick};

/// Not the customer who filed the returns.
const ADMIN: &str = "7";

/// The environment of a command that decides.
pub(super) async fn as_admin(system: &System) -> anyhow::Result<Env> {
    operator::as_admin(&system.env, ADMIN).await
}

async fn retry_all(env: &Env, returns: &[ReturnId]) -> anyhow::Result<()> {
    for id in returns {
        retry(env, *id).await?;
    }
    Ok(())
}

/// Retries the first attempt with the command that `show` prints.
pub(super) async fn retry(env: &Env, id: ReturnId) -> anyhow::Result<()> {
    let id = id.to_string();
    let shown = run("returnsctl", &["refunds", "show", &id, "--json"], env).await?;
    let shown: Value = serde_json::from_str(&shown)?;
    let line = format!("returnsctl refunds retry {id} --attempt 1 --reason 'WHY'");
    ensure!(shown["commands"][0]["line"] == line, "{shown}");
    let args = [
        "refunds",
        "retry",
        &id,
        "--attempt",
        "1",
        "--reason",
        "WHY",
        "--json",
    ];
    let report: Value = serde_json::from_str(&run("returnsctl", &args, env).await?)?;
    ensure!(report["attempt"] == 2, "{report}");
    Ok(())
}

/// The same expected end for every return.
fn all(
    returns: &[ReturnId],
    end: (&'static str, &'static str),
) -> HashMap<ReturnId, (&'static str, &'static str)> {
    returns.iter().map(|id| (*id, end)).collect()
}

/// Files returns whose first attempt gets `fault`, waits until it is declined, and retries each.
async fn declined_and_retried(
    system: &System,
    provider: &Provider,
    fault: &str,
) -> anyhow::Result<Vec<ReturnId>> {
    let returns = file(system, 1, EACH).await?;
    for id in &returns {
        let key = provider::key(system, *id, 1).await?;
        provider.script(&key, &[fault], &[]).await?;
    }
    all_stand(system, &all(&returns, ("refund_failed", "declined"))).await?;
    retry_all(&as_admin(system).await?, &returns).await?;
    Ok(returns)
}

/// The provider has paid once under the key of this attempt, and under no other key of the return.
async fn paid_once_by(system: &System, returns: &[ReturnId], attempt: i32) -> anyhow::Result<()> {
    let mut expected = HashMap::new();
    for id in returns {
        expected.insert(provider::key(system, *id, attempt).await?, 1);
    }
    let effects = ledger::effects(&system.ledger)?;
    ensure!(effects == expected, "{effects:?}, expected {expected:?}");
    nothing_is_wrong(system).await
}

#[tokio::test]
async fn p5_p6_a_declined_refund_that_a_person_retries_is_paid_once_under_a_new_key()
-> anyhow::Result<()> {
    let mut system = quick().await?;
    let provider = Provider::start(&mut system, &[]).await?;
    let _relay = system.start("outbox-relay").await?;
    let _consumer = system.start("refund-consumer").await?;
    let returns = declined_and_retried(&system, &provider, "decline").await?;
    all_stand(&system, &all(&returns, ("refunded", "succeeded"))).await?;
    let by_an_admin = "SELECT COUNT(*) FROM return_events WHERE event_type = 'refund.retried' AND actor_type = 'admin' \
                       AND actor_id = '7'";
    ensure!(system.count(by_an_admin).await? == i64::try_from(EACH)?);
    paid_once_by(&system, &returns, 2).await
}

/// The provider responded "declined" and paid all the same. The look-up before attempt 2 finds that, and attempt 2 is not sent.
#[tokio::test]
async fn p5_a_retry_of_a_refund_that_was_paid_after_all_pays_nothing() -> anyhow::Result<()> {
    let mut system = quick().await?;
    let provider = Provider::start(&mut system, &[]).await?;
    let _relay = system.start("outbox-relay").await?;
    let _consumer = system.start("refund-consumer").await?;
    let returns = declined_and_retried(&system, &provider, "decline-then-pays").await?;
    all_stand(&system, &all(&returns, ("refunded", "void"))).await?;
    let first = "SELECT COUNT(*) FROM refunds WHERE attempt = 1 AND state = 'succeeded'";
    ensure!(system.count(first).await? == i64::try_from(EACH)?);
    paid_once_by(&system, &returns, 1).await
}
