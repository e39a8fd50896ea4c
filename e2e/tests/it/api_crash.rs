//! The api is killed inside the filing transaction and right after it: the return is complete or absent, and a retry finds it.

use std::time::Duration;

use anyhow::Context;
use e2e::checks;
use e2e::system::{CUSTOMER, System};

#[tokio::test]
async fn p1_an_api_killed_around_commit_leaves_all_or_nothing() -> anyhow::Result<()> {
    let system = System::create().await?;
    system.db.seed_orders(1, 3, CUSTOMER).await;
    let client = system.customer.clone();
    for (order, point, committed) in [
        (1, "api.after_insert", 0),
        (2, "api.before_commit", 0),
        (3, "api.after_commit", 1),
    ] {
        let armed = format!("{point}=return");
        let mut api = system
            .start_with("returns-api", &[("FAILPOINTS", &armed)])
            .await?;
        let key = format!("key-{order}");
        let unanswered = client.file(api.api_address()?, order, Some(&key)).await;
        assert!(unanswered.is_err(), "{point}: {unanswered:?}");
        api.killed_itself(Duration::from_secs(20))
            .await
            .with_context(|| point)?;
        let rows = "SELECT COUNT(*) FROM returns r JOIN return_events e ON e.return_id = r.id \
                    JOIN outbox o ON o.event_id = e.event_id WHERE r.order_id = (SELECT MAX(order_id) FROM returns)";
        let before = system.count("SELECT COUNT(*) FROM returns").await?;
        assert_eq!(before, order - 1 + committed, "{point}");
        let api = system.start("returns-api").await?;
        let id = client
            .file(api.api_address()?, order, Some(&key))
            .await?
            .return_id();
        assert!(id.is_some(), "{point}: the retry files it, or finds it");
        assert_eq!(
            system.count("SELECT COUNT(*) FROM returns").await?,
            order,
            "{point}"
        );
        assert_eq!(
            system.count(rows).await?,
            1,
            "{point}: with its event and outbox row"
        );
    }
    let _relay = system.start("outbox-relay").await?;
    let _consumer = system.start("refund-consumer").await?;
    system.settled(Duration::from_secs(60)).await?;
    checks::everything(&system).await
}
