//! The consumer is killed at each step: every return ends refunded, with one effect and one audit row per step.

use std::time::Duration;

use anyhow::Context;
use e2e::checks;
use e2e::system::{CUSTOMER, System};

const STEPS: [&str; 6] = [
    "consumer.after_poll",
    "consumer.after_claim",
    "consumer.before_call",
    "consumer.after_call",
    "consumer.before_settle",
    "consumer.after_settle",
];

#[tokio::test]
async fn p5_p7_a_consumer_killed_at_any_step_refunds_once() -> anyhow::Result<()> {
    let system = System::create().await?;
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
    let _consumer = system.start("refund-consumer").await?;
    system.settled(Duration::from_secs(90)).await?;
    checks::everything(&system).await?;
    checks::straight_paths(&system).await
}
