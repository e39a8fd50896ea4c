//! The relay is killed between acknowledgement and delete: duplicates, but nothing lost and nothing reordered.

use std::time::Duration;

use anyhow::Context;
use e2e::system::{CUSTOMER, System};
use e2e::{checks, topic_check};

#[tokio::test]
async fn p3_p4_a_relay_killed_between_acknowledgement_and_delete_loses_nothing()
-> anyhow::Result<()> {
    let mut system = System::create().await?;
    // Each relay waits for the lease of the one that died before.
    let lease = ("LEASE_MS".to_owned(), "2000".to_owned());
    system.env.extend([lease]);
    let count = 200;
    system.db.seed_orders(1, count, CUSTOMER).await;
    let api = system.start("returns-api").await?;
    let (address, client) = (api.api_address()?, system.customer.clone());
    for order in 1..=count {
        assert_eq!(client.file(address, order, None).await?.status, 201);
    }
    let _consumer = system.start("refund-consumer").await?;
    for point in [
        "relay.after_read",
        "relay.after_ack",
        "relay.after_delete",
        "relay.after_ack",
    ] {
        let armed = format!("{point}=return");
        let mut relay = system
            .start_with("outbox-relay", &[("FAILPOINTS", &armed)])
            .await?;
        relay
            .killed_itself(Duration::from_secs(60))
            .await
            .with_context(|| point)?;
    }
    assert!(
        system.count("SELECT COUNT(*) FROM outbox").await? > 0,
        "killed before all was deleted"
    );
    let _relay = system.start("outbox-relay").await?;
    system.settled(Duration::from_secs(120)).await?;
    let topics = topic_check::check(&system).await?;
    eprintln!("{topics:?}");
    assert!(
        topics.repeats.count() > 0,
        "a crash after the acknowledgement must repeat records"
    );
    checks::one_effect_per_return(&system).await?;
    checks::straight_paths(&system).await
}
