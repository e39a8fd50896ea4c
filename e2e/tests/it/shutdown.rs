//! P11: SIGTERM under load ends each program in time with exit code 0, and no accepted return is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::system::{CUSTOMER, System};
use e2e::{checks, until};

#[tokio::test]
async fn p11_all_three_programs_stop_cleanly_under_load() -> anyhow::Result<()> {
    let system = System::create().await?;
    system.db.seed_orders(1, 20_000, CUSTOMER).await;
    let api = system.start("returns-api").await?;
    let relay = system.start("outbox-relay").await?;
    let consumer = system.start("refund-consumer").await?;
    let (address, client) = (api.api_address()?, system.customer.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let mut filers = tokio::task::JoinSet::new();
    for filer in 0..16_i64 {
        let (client, stop) = (client.clone(), Arc::clone(&stop));
        filers.spawn(async move {
            let mut filed = Vec::new();
            for order in (1 + filer * 1_250)..=(1_250 + filer * 1_250) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                match client.file(address, order, None).await {
                    Ok(answer) => filed.push(answer.return_id().expect("only 201 until the stop")),
                    // The listener is closed.
                    Err(_) => break,
                }
            }
            filed
        });
    }
    until(
        "some refunds under load",
        Duration::from_secs(120),
        async || {
            Ok(system
                .count("SELECT COUNT(*) FROM returns WHERE status = 'refunded'")
                .await?
                > 50)
        },
    )
    .await?;
    // Each program must stop before its drain deadline, so that it has finished its work.
    for (name, program, drain_secs) in [
        ("refund-consumer", consumer, 15),
        ("outbox-relay", relay, 10),
        ("returns-api", api, 25),
    ] {
        let asked = Instant::now();
        program.stop(Duration::from_secs(drain_secs)).await?;
        eprintln!("{name} stopped in {:?} under load", asked.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    let filed: usize = filers.join_all().await.iter().map(Vec::len).sum();
    let stored = system.count("SELECT COUNT(*) FROM returns").await?;
    assert_eq!(usize::try_from(stored)?, filed, "P1");
    let leases = "SELECT COUNT(*) FROM outbox_lease WHERE owner IS NOT NULL AND lease_until > UTC_TIMESTAMP(6)";
    assert_eq!(
        system.count(leases).await?,
        0,
        "a stopped relay gives its leases back"
    );
    // New programs continue the work.
    let _relay = system.start("outbox-relay").await?;
    let _consumer = system.start("refund-consumer").await?;
    system.settled(Duration::from_secs(120)).await?;
    checks::everything(&system).await?;
    checks::straight_paths(&system).await
}
