//! The time from filing to refund, on a machine that does nothing else.

use std::time::{Duration, Instant};

use e2e::system::{CUSTOMER, System};
use e2e::{checks, until};

use crate::EXCLUSIVE;

const DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn filed_returns_are_usually_refunded_within_two_seconds() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let system = System::create().await?;
    system.db.seed_orders(1, 6, CUSTOMER).await;
    let api = system.start("returns-api").await?;
    let _relay = system.start("outbox-relay").await?;
    let _consumer = system.start("refund-consumer").await?;
    let (address, client) = (api.api_address()?, system.customer.clone());
    // The first return waits for the consumer to join its group.
    client.file(address, 6, None).await?;
    system.settled(DEADLINE).await?;
    let mut took = Vec::new();
    for order in 1..=5 {
        let filed = Instant::now();
        let answer = client.file(address, order, None).await?;
        assert_eq!(answer.body["status"], "initiated", "{answer:?}");
        let id = answer.return_id().expect("a 201");
        until("refunded", DEADLINE, async || {
            Ok(client.status(address, id).await? == "refunded")
        })
        .await?;
        took.push(filed.elapsed());
    }
    took.sort_unstable();
    eprintln!("filed to refunded: {took:?}");
    assert!(took[2] < Duration::from_secs(2), "{took:?}");
    assert!(took[4] < Duration::from_secs(10), "{took:?}");
    system.settled(DEADLINE).await?;
    checks::everything(&system).await?;
    checks::straight_paths(&system).await
}
