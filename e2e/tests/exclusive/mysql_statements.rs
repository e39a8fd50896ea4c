//! How many statements many programs keep prepared in MySQL: for all clients together there may be 16,382 by default.

use std::time::Duration;

use anyhow::ensure;
use e2e::checks;
use e2e::system::{CUSTOMER, System};
use sqlx::Row;

use crate::{EXCLUSIVE, FILERS, Filers};

/// A quarter of MySQL's default leaves room for deployments, in which old and new programs run together.
const MOST: u64 = 16_382 / 4;
const ORDERS_EACH: i64 = 1_000;
const LOAD: Duration = Duration::from_secs(20);

#[tokio::test]
async fn p12_many_programs_keep_few_statements_prepared() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let system = System::create().await?;
    let orders = 8 * FILERS * ORDERS_EACH;
    system.db.seed_orders(1, orders, CUSTOMER).await;
    let (mut apis, mut others) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        apis.push(system.start("returns-api").await?);
        others.push(system.start("refund-consumer").await?);
    }
    for _ in 0..2 {
        others.push(system.start("outbox-relay").await?);
    }
    let mut filers = Vec::new();
    for (api, first) in apis
        .iter()
        .zip((1..).step_by(usize::try_from(FILERS * ORDERS_EACH)?))
    {
        filers.push(Filers::start_at(
            &system.customer,
            api.api_address()?,
            first,
            ORDERS_EACH,
        ));
    }
    let mut most = 0;
    let until = tokio::time::Instant::now() + LOAD;
    while tokio::time::Instant::now() < until {
        let row = sqlx::raw_sql("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'")
            .fetch_one(&system.db.pool)
            .await?;
        most = most.max(row.try_get::<String, _>(1)?.parse::<u64>()?);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut acknowledged = 0;
    for filers in filers {
        acknowledged += filers.finish().await.acknowledged.len();
    }
    eprintln!(
        "8 apis, 8 consumers, 2 relays: {acknowledged} filed, at most {most} prepared statements"
    );
    ensure!(most < MOST, "{most} prepared statements, not below {MOST}");
    system.settled(Duration::from_secs(180)).await?;
    checks::everything(&system).await
}
