//! A consumer whose machine is suspended between claim and call. Its monotonic clock stands still meanwhile, so that it
//! alone cannot tell that another consumer has taken its attempts over.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::provider::Provider;
use e2e::{ledger, until};
use shared::test_support::clock_shifts::{ClockShifts, Suspension};

use super::{file, nothing_is_wrong, quick};

const DEADLINE: Duration = Duration::from_secs(180);
const SETTLEMENTS: &str = "refund_consumer_settlements_total";
const RETURNS: usize = 60;

#[tokio::test]
async fn p5_a_consumer_of_a_machine_that_slept_makes_no_late_call() -> anyhow::Result<()> {
    wakes_and_pays_nothing(Suspension::Slept).await
}

#[tokio::test]
async fn p5_a_consumer_of_a_machine_that_was_restored_makes_no_late_call() -> anyhow::Result<()> {
    wakes_and_pays_nothing(Suspension::Restored).await
}

/// Without keys: an attempt that the suspended consumer had marked as sent is parked by another consumer, and people may
/// have paid it in another way when the first one wakes.
async fn wakes_and_pays_nothing(suspension: Suspension) -> anyhow::Result<()> {
    /// One call is held; the kill point is over when the machine wakes, and blocks one thread.
    const HELD: &str = "consumer.before_call=1*sleep(3000)";
    let mut system = quick().await?;
    // Long enough to be valid by the clock that stands still.
    system
        .env
        .insert("CALL_DEADLINE_MS".to_owned(), "5000".to_owned());
    let _provider = Provider::start(&mut system, &["--no-idempotency-keys"]).await?;
    let first = file(&system, 1, 1).await?[0];
    let mut shifts = ClockShifts::new();
    let env = shifts.env();
    let env: Vec<(&str, &str)> = env
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .chain([("FAILPOINTS", HELD), ("TOKIO_WORKER_THREADS", "4")])
        .collect();
    let sleeper = system.start_with("refund-consumer", &env).await?;
    until("it is about to call", DEADLINE, async || {
        let sent = "SELECT COUNT(*) FROM refunds WHERE state = 'sent'";
        Ok(system.count(sent).await? == 1)
    })
    .await?;
    sleeper.freeze()?;
    let frozen = Instant::now();

    let relay = system.start("outbox-relay").await?;
    let _successor = system.start("refund-consumer").await?;
    file(&system, 2, RETURNS - 1).await?;
    system.settled_or_parked(DEADLINE).await?;
    let state: String = sqlx::query_scalar("SELECT state FROM refunds WHERE return_id = ?")
        .bind(first)
        .fetch_one(&system.db.pool)
        .await?;
    ensure!(state == "parked", "the held attempt is {state}");
    shifts.set_back(i64::try_from(frozen.elapsed().as_secs())?, suspension);
    sleeper.thaw()?;
    until("it has reported", DEADLINE, async || {
        Ok(sleeper.metric(SETTLEMENTS).await? > 0)
    })
    .await?;
    let paid = ledger::effects(&system.ledger)?;
    ensure!(
        paid.len() == RETURNS - 1 && paid.values().all(|count| *count == 1),
        "a call that began after its deadline has paid: {} of {}",
        paid.len(),
        RETURNS - 1
    );
    until("the outbox is empty", DEADLINE, async || {
        Ok(system.count("SELECT COUNT(*) FROM outbox").await? == 0)
    })
    .await?;
    relay.stop(DEADLINE).await?;
    nothing_is_wrong(&system).await
}
