//! The consumer is killed at each step: every return ends refunded, with one effect and one audit row per step.

use std::time::Duration;

use anyhow::Context;
use e2e::refund_chaos::STEPS;
use e2e::system::{CUSTOMER, System};
use e2e::{checks, until};

#[tokio::test]
async fn p5_p7_a_consumer_killed_at_any_step_refunds_once() -> anyhow::Result<()> {
    let mut system = System::create().await?;
    for (name, value) in [
        // The scan must not hide a lost message.
        ("INITIATED_GRACE_SECS", "3600"),
        // After this time the scan takes over the attempts of a dead consumer.
        ("CALL_DEADLINE_MS", "6000"),
        ("GATEWAY_CALL_TIMEOUT_MS", "5000"),
    ] {
        system.env.insert(name.to_owned(), value.to_owned());
    }
    let per_step = 20;
    let steps = i64::try_from(STEPS.len())?;
    system.db.seed_orders(1, per_step * steps, CUSTOMER).await;
    let api = system.start("returns-api").await?;
    let _relay = system.start("outbox-relay").await?;
    let (address, client) = (api.api_address()?, system.customer.clone());
    let mut order = 0;
    for step in STEPS {
        for _ in 0..per_step {
            order += 1;
            assert_eq!(client.file(address, order, None).await?.status, 201);
        }
        let armed = format!("{step}=return");
        let mut consumer = system
            .start_with("refund-consumer", &[("FAILPOINTS", &armed)])
            .await?;
        consumer
            .killed_itself(Duration::from_secs(60))
            .await
            .with_context(|| step)?;
    }
    let consumer = system.start("refund-consumer").await?;
    system.settled(Duration::from_secs(90)).await?;
    until(
        "all offsets are committed",
        Duration::from_secs(60),
        async || Ok(checks::lag(&system).await? == 0),
    )
    .await?;
    consumer.stop(Duration::from_secs(30)).await?;
    checks::every_message_was_processed(&system).await?;
    checks::everything(&system).await?;
    checks::straight_paths(&system).await
}
