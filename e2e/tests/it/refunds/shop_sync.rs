//! The shop rewrites all its orders, again and again, while their returns are filed, refunded and filed once more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use e2e::provider::Provider;
use e2e::system::{CUSTOMER, System};
use e2e::{checks, ledger};
use serde_json::{Value, json};
use shared::runtime::db::DbFailure;
use sqlx::MySqlPool;
use tokio::task::JoinSet;

use super::{nothing_is_wrong, quick};

const ORDERS: i64 = 300;
/// Rows that the shop writes in one statement.
const CHUNK: i64 = 50;
const DEADLINE: Duration = Duration::from_secs(120);

/// Full rows, as the shop has them: it has refunded nothing itself. Returns how often it wrote all of them.
async fn sync(pool: MySqlPool, stop: Arc<AtomicBool>) -> anyhow::Result<u32> {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        for first in (1..=ORDERS).step_by(usize::try_from(CHUNK)?) {
            let mut rows = sqlx::QueryBuilder::new(
                "INSERT INTO orders (id, customer_id, total, currency, status, delivered_at, refunded_amount) ",
            );
            rows.push_values(first..first + CHUNK, |mut row, id| {
                row.push_bind(id).push_bind(CUSTOMER);
                row.push("49.90, 'EUR', 'delivered', UTC_DATE() - INTERVAL 3 DAY, 0");
            });
            rows.push(
                " AS new ON DUPLICATE KEY UPDATE customer_id = new.customer_id, total = new.total, \
                 currency = new.currency, status = new.status, delivered_at = new.delivered_at, \
                 refunded_amount = new.refunded_amount",
            );
            match rows.build().execute(&pool).await {
                Ok(_) => {}
                // The shop waits for a lock of ours, or a deadlock chose it: it writes the rows in its next round.
                Err(error) if DbFailure::of(&error).is_transient() => {}
                Err(error) => return Err(error.into()),
            }
        }
        rounds += 1;
    }
    Ok(rounds)
}

/// Files every order once; returns the statuses of the responses, and the violations of those that were refused.
async fn file_all(system: &System, api: SocketAddr) -> anyhow::Result<Vec<(u16, Value)>> {
    let mut filings = JoinSet::new();
    for order in 1..=ORDERS {
        let client = system.customer.clone();
        filings.spawn(async move {
            let response = client.file(api, order, None).await?;
            anyhow::Ok((response.status, response.body["violations"].clone()))
        });
    }
    filings.join_all().await.into_iter().collect()
}

#[tokio::test]
async fn p5_orders_that_the_shop_rewrites_all_the_time_are_refunded_once() -> anyhow::Result<()> {
    let mut system = quick().await?;
    let _provider = Provider::start(&mut system, &["--delay-ms=20"]).await?;
    let api = system.start("returns-api").await?;
    let _relay = system.start("outbox-relay").await?;
    let _consumer = system.start("refund-consumer").await?;
    let _another = system.start("refund-consumer").await?;
    let address = api.api_address()?;
    system.db.seed_orders(1, ORDERS, CUSTOMER).await;
    let stop = Arc::new(AtomicBool::new(false));
    let shop = tokio::spawn(sync(system.db.pool.clone(), Arc::clone(&stop)));

    let first = file_all(&system, address).await?;
    ensure!(first.iter().all(|(status, _)| *status == 201), "{first:?}");
    system.settled(DEADLINE).await?;
    // Whatever the shop has written, it is one refund for each order.
    for _ in 0..2 {
        let again = file_all(&system, address).await?;
        let refused = (422, json!(["already_refunded"]));
        ensure!(again.iter().all(|answer| *answer == refused), "{again:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = shop.await??;
    ensure!(rounds > 1, "the shop wrote its orders {rounds} times");
    let effects = ledger::effects(&system.ledger)?;
    ensure!(
        effects.len() == usize::try_from(ORDERS)?,
        "{}",
        effects.len()
    );
    checks::straight_paths(&system).await?;
    nothing_is_wrong(&system).await
}
