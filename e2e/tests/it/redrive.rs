//! `returnsctl outbox redrive` while a relay runs.

use std::time::Duration;

use anyhow::ensure;
use e2e::load::Writer;
use e2e::program::run;
use e2e::system::System;
use e2e::{topic_check, until};
use shared::domain::ids::OrderId;
use sqlx::Executor;

const DEADLINE: Duration = Duration::from_secs(60);

/// An event of order 2 is too large for its topic. An operator repairs the parked row and puts the order back while new
/// events of all orders arrive.
#[tokio::test]
async fn p3_p4_an_order_that_is_put_back_while_a_relay_runs_stays_in_order() -> anyhow::Result<()> {
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
    until("order 2 is parked from seq 2 on", DEADLINE, async || {
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
    let printed = run("returnsctl", &args, &system.env).await?;
    ensure!(printed.contains("Put back 4 rows of 1 order"), "{printed}");
    writer.change(&returns, 2).await?;
    until(
        "the outbox is empty and nothing is parked",
        DEADLINE,
        async || {
            let left =
                "SELECT (SELECT COUNT(*) FROM outbox) + (SELECT COUNT(*) FROM outbox_parked)";
            Ok(system.count(left).await? == 0)
        },
    )
    .await?;
    let topics = topic_check::check(&system).await?;
    ensure!(topics.events == 3 * 7, "{topics:?}");
    ensure!(topics.repeats.count() == 0, "{topics:?}");
    Ok(())
}
