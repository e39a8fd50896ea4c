//! The server's defaults for new sessions are the database administrator's. None of them may change what the programs do.

use std::time::Duration;

use e2e::checks;
use e2e::program::{Program, run};
use e2e::system::{CUSTOMER, System};
use shared::test_support::TestDb;
use sqlx::{AssertSqlSafe, Executor};

use crate::EXCLUSIVE;

const ORDERS: i64 = 150;
const DEADLINE: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(20);
/// Each is a default that some administrator has a reason for, or that a cluster sets (group replication numbers rows
/// in steps of seven).
const DEFAULTS: [(&str, &str); 10] = [
    ("autocommit", "OFF"),
    ("auto_increment_increment", "7"),
    ("auto_increment_offset", "3"),
    ("completion_type", "'CHAIN'"),
    ("foreign_key_checks", "OFF"),
    ("max_execution_time", "1"),
    ("max_join_size", "10"),
    ("sql_safe_updates", "ON"),
    ("sql_select_limit", "10"),
    ("unique_checks", "OFF"),
];

#[tokio::test]
async fn p1_p3_p5_defaults_of_the_server_change_nothing() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let system = System::create().await?;
    system.db.seed_orders(1, ORDERS, CUSTOMER).await;
    for (name, value) in DEFAULTS {
        let set = format!("SET GLOBAL {name} = {value}");
        system.db.pool.execute(AssertSqlSafe(set)).await?;
    }
    let outcome = async {
        migrate_empty_database(&system).await?;
        refund_all(&system).await
    }
    .await;
    for (name, _) in DEFAULTS {
        let reset = format!("SET GLOBAL {name} = DEFAULT");
        system.db.pool.execute(AssertSqlSafe(reset)).await?;
    }
    outcome
}

async fn migrate_empty_database(system: &System) -> anyhow::Result<()> {
    let empty = TestDb::create_empty().await;
    let mut env = system.env.clone();
    env.insert("DATABASE_URL".to_owned(), empty.url().to_owned());
    run("returnsctl", &["migrate"], &env).await?;
    Program::start("outbox-relay", &env).await?.stop(STOP).await
}

async fn refund_all(system: &System) -> anyhow::Result<()> {
    let api = system.start("returns-api").await?;
    let relay = system.start("outbox-relay").await?;
    let consumer = system.start("refund-consumer").await?;
    let (address, client) = (api.api_address()?, &system.customer);
    let filings = (1..=ORDERS).map(|order| client.file(address, order, None));
    for filed in futures_util::future::join_all(filings).await {
        let filed = filed?;
        anyhow::ensure!(filed.status == 201, "{filed:?}");
    }
    system.settled(DEADLINE).await?;
    let orders = client.get(address, "/orders?limit=100").await?;
    let listed = orders.body["items"].as_array().map_or(0, Vec::len);
    anyhow::ensure!(listed == 100, "a page has {listed} orders: {orders:?}");
    checks::everything(system).await?;
    for program in [api, relay, consumer] {
        program.stop(STOP).await?;
    }
    Ok(())
}
