//! The provider takes refunds back while others are paid, a consumer dies, and an operator retries what came back.

use std::time::Duration;

use anyhow::ensure;
use e2e::provider::{self, Provider};
use e2e::system::System;
use e2e::{ledger, until};
use shared::domain::ids::ReturnId;

use super::operator::{as_admin, retry};
use super::{file, nothing_is_wrong, quick};

const DEADLINE: Duration = Duration::from_secs(180);
const SECRET: &str = "notification-6f1e9b2d7c40a8e5b3d0a1f4";
const RETURNS: usize = 200;
/// Each fourth refund comes back.
const STEP: usize = 4;

#[tokio::test]
async fn p5_p7_p8_refunds_that_come_back_under_load_are_reported_and_paid_again()
-> anyhow::Result<()> {
    let mut system = quick().await?;
    system
        .env
        .insert("GATEWAY_NOTIFICATION_SECRET".to_owned(), SECRET.to_owned());
    let api = system.start("returns-api").await?;
    let notify = format!(
        "--notify-url=http://{}/gateway/notifications",
        api.api_address()?
    );
    let provider = Provider::start(&mut system, &[&notify]).await?;
    let _relay = system.start("outbox-relay").await?;
    let doomed = system.start("refund-consumer").await?;
    let _consumer = system.start("refund-consumer").await?;
    let first = file(&system, 1, RETURNS).await?;
    system.settled(DEADLINE).await?;

    let second = file(&system, 1_001, RETURNS).await?;
    let taken_back: Vec<ReturnId> = first.into_iter().step_by(STEP).collect();
    for (at, id) in taken_back.iter().enumerate() {
        provider
            .reverse(&provider::key(&system, *id, 1).await?)
            .await?;
        if at == taken_back.len() / 2 {
            doomed.freeze()?;
        }
    }
    doomed.kill().await?;
    until(
        "every reversal is found, all others are refunded",
        DEADLINE,
        async || {
            let refunded = count(&system, "refunded").await?;
            let failed = count(&system, "refund_failed").await?;
            Ok((refunded, failed) == (RETURNS - taken_back.len() + second.len(), taken_back.len()))
        },
    )
    .await?;
    let events = "SELECT COUNT(*) FROM return_events WHERE event_type = 'refund.reversed'";
    ensure!(usize::try_from(system.count(events).await?)? == taken_back.len());
    until("the outbox is empty", DEADLINE, async || {
        Ok(system.count("SELECT COUNT(*) FROM outbox").await? == 0)
    })
    .await?;
    nothing_is_wrong(&system).await?;

    let env = as_admin(&system).await?;
    for id in &taken_back {
        retry(&env, *id).await?;
    }
    system.settled(DEADLINE).await?;
    nothing_is_wrong(&system).await?;
    let lines = ledger::read(&system.ledger)?;
    let standing = lines.iter().filter(|line| !line.reversed).count();
    ensure!((lines.len(), standing) == (2 * RETURNS + taken_back.len(), 2 * RETURNS));
    Ok(())
}

async fn count(system: &System, status: &str) -> anyhow::Result<usize> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM returns WHERE status = ?")
        .bind(status)
        .fetch_one(&system.db.pool)
        .await?;
    Ok(usize::try_from(count)?)
}
