//! From `POST /returns` to the refund, as customer and auditor see it.

use std::time::Duration;

use e2e::system::{CUSTOMER, System};
use e2e::{checks, until};
use sqlx::Row;

/// Well above the time that a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn the_customer_sees_each_state_and_the_audit_who_approved() -> anyhow::Result<()> {
    let system = System::create().await?;
    system.db.seed_orders(1, 1, CUSTOMER).await;
    let api = system.start("returns-api").await?;
    let _consumer = system
        .start_with(
            "refund-consumer",
            &[
                ("SIMULATED_DELAY_MS", "5000"),
                ("INITIATED_GRACE_SECS", "3600"),
            ],
        )
        .await?;
    let (address, client) = (api.api_address()?, system.customer.clone());
    let id = client
        .file(address, 1, None)
        .await?
        .return_id()
        .expect("a 201");
    let mut seen = vec![client.status(address, id).await?];
    // Until the relay runs, the consumer does not know the return.
    let _relay = system.start("outbox-relay").await?;
    until("refunded", DEADLINE, async || {
        let status = client.status(address, id).await?;
        if seen.last() != Some(&status) {
            seen.push(status);
        }
        Ok(seen.last().is_some_and(|status| status == "refunded"))
    })
    .await?;
    assert_eq!(seen, ["initiated", "refund_pending", "refunded"]);
    let approval = sqlx::query("SELECT actor_type, actor_id, event_data FROM return_events WHERE event_type = 'return.approved'")
        .fetch_one(&system.db.pool)
        .await?;
    assert_eq!(approval.try_get::<String, _>("actor_type")?, "policy");
    let version = approval.try_get::<String, _>("actor_id")?;
    let data: serde_json::Value =
        serde_json::from_str(&approval.try_get::<String, _>("event_data")?)?;
    assert_eq!(data["policy_version"], version.as_str(), "{data}");
    assert_eq!(data["auto"], true, "{data}");
    Ok(())
}

#[tokio::test]
async fn p10_a_malformed_record_is_kept_and_the_partition_goes_on() -> anyhow::Result<()> {
    let system = System::create().await?;
    system.db.seed_orders(1, 20, CUSTOMER).await;
    for partition in 0..4 {
        system.poison(partition).await?;
    }
    let api = system.start("returns-api").await?;
    let _relay = system.start("outbox-relay").await?;
    let _consumer = system.start("refund-consumer").await?;
    let (address, client) = (api.api_address()?, system.customer.clone());
    for order in 1..=20 {
        assert_eq!(client.file(address, order, None).await?.status, 201);
    }
    system.settled(DEADLINE).await?;
    let kept = "SELECT COUNT(*) FROM dead_letters WHERE payload = '{\"return_id\": not json' AND reason <> ''";
    // The scan may have refunded all returns before a partition was read.
    until("the malformed records are kept", DEADLINE, async || {
        Ok(system.count(kept).await? == 4)
    })
    .await?;
    checks::one_effect_per_return(&system).await
}

#[tokio::test]
async fn p9_fifty_concurrent_repeats_over_two_processes_file_once() -> anyhow::Result<()> {
    let system = System::create().await?;
    system.db.seed_orders(1, 1, CUSTOMER).await;
    let (first, second) = (
        system.start("returns-api").await?,
        system.start("returns-api").await?,
    );
    let addresses = [first.api_address()?, second.api_address()?];
    let client = system.customer.clone();
    let mut repeats = tokio::task::JoinSet::new();
    for n in 0..50 {
        let (client, address) = (client.clone(), addresses[n % 2]);
        repeats.spawn(async move { client.file(address, 1, Some("one-key")).await });
    }
    let answers: Vec<_> = repeats
        .join_all()
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    for answer in &answers {
        assert_eq!((answer.status, answer), (201, &answers[0]));
    }
    assert_eq!(system.count("SELECT COUNT(*) FROM returns").await?, 1);
    Ok(())
}
