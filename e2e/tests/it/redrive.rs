//! `returnsctl outbox redrive` beside a living relay.

use std::time::Duration;

use anyhow::ensure;
use e2e::load::Writer;
use e2e::program::run;
use e2e::system::System;
use e2e::{until, verdict};
use shared::domain::ids::OrderId;
use sqlx::Executor;

const PATIENCE: Duration = Duration::from_secs(60);

/// An event of order 2 was written too large for its topic. Somebody mends the parked row and puts the order back while
/// events of all orders go on arriving.
#[tokio::test]
async fn p3_p4_an_order_that_is_put_back_beside_a_living_relay_stays_in_order() -> anyhow::Result<()>
{
    let system = System::create().await?;
    let options = system.db.pool.connect_options();
    let mut writer = Writer::connect(&options, system.topic_args()).await?;
    let orders = [1, 2, 3].map(OrderId);
    let returns = writer.file(&system.db, &orders).await?;
    writer.change(&returns, 2).await?;
    system
        .db
        .pool
        .execute("CREATE TABLE mended SELECT * FROM outbox WHERE msg_key = '2' AND seq = 2")
        .await?;
    system
        .db
        .pool
        .execute("UPDATE outbox SET payload = REPEAT('x', 3000000) WHERE msg_key = '2' AND seq = 2")
        .await?;
    let _relay = system.start("outbox-relay").await?;
    writer.change(&returns, 2).await?;
    until("order 2 is parked from seq 2 on", PATIENCE, async || {
        let parked = "SELECT COUNT(*) FROM outbox_parked WHERE msg_key = '2'";
        let waiting = "SELECT COUNT(*) FROM outbox";
        Ok(system.count(parked).await? == 4 && system.count(waiting).await? == 0)
    })
    .await?;

    system
        .db
        .pool
        .execute(
            "UPDATE outbox_parked AS p JOIN mended AS m USING (shard, id) SET p.payload = m.payload",
        )
        .await?;
    let args = "outbox redrive --order 2 --by j.doe --reason mended";
    let args: Vec<&str> = args.split(' ').collect();
    let told = run("returnsctl", &args, &system.env).await?;
    ensure!(told.contains("put back 4 rows of 1 order"), "{told}");
    writer.change(&returns, 2).await?;
    until("nothing is left", PATIENCE, async || {
        let left = "SELECT (SELECT COUNT(*) FROM outbox) + (SELECT COUNT(*) FROM outbox_parked)";
        Ok(system.count(left).await? == 0)
    })
    .await?;
    let verdict = verdict::judge(&system).await?;
    ensure!(verdict.events == 3 * 7, "{verdict:?}");
    ensure!(verdict.repeats.count() == 0, "{verdict:?}");
    Ok(())
}
