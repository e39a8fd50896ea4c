//! A planned switchover: the old server stays up and refuses writes, and new connections lead to its replica.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::stack::PrivateMysql;
use e2e::system::{CUSTOMER, System};
use e2e::{checks, until};
use shared::test_support::TestDb;
use shared::test_support::mysql_proxy::MysqlProxy;
use sqlx::mysql::MySqlPool;
use sqlx::{AssertSqlSafe, Executor};

use crate::{EXCLUSIVE, FILERS, Filers, acknowledged_are_there, more_returns};

const ORDERS_EACH: i64 = 2_000;
/// From the change of the address to work that goes on.
const RECOVERY: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(120);

fn options(server_id: &'static str) -> [&'static str; 6] {
    [
        server_id,
        "--performance-schema=ON",
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--innodb-flush-log-at-trx-commit=2",
        "--sync-binlog=0",
    ]
}

/// Makes `replica` a copy of `source` that follows it, and is read-only.
async fn follow(replica: &MySqlPool, source_url: &str) -> anyhow::Result<()> {
    let port = source_url
        .rsplit(':')
        .next()
        .and_then(|rest| rest.split('/').next());
    let port = port.unwrap_or_default();
    replica
        .execute(AssertSqlSafe(format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = 'root', \
             SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1"
        )))
        .await?;
    replica.execute("START REPLICA").await?;
    replica.execute("SET GLOBAL super_read_only = ON").await?;
    Ok(())
}

/// Waits until the replica has everything, and makes it the primary.
async fn promote(replica: &MySqlPool, source: &MySqlPool) -> anyhow::Result<()> {
    let executed: String = sqlx::query_scalar("SELECT @@GLOBAL.gtid_executed")
        .fetch_one(source)
        .await?;
    let late: i64 = sqlx::query_scalar("SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 60)")
        .bind(executed)
        .fetch_one(replica)
        .await?;
    ensure!(late == 0, "the replica does not follow");
    for sql in [
        "STOP REPLICA",
        "RESET REPLICA ALL",
        "SET GLOBAL super_read_only = OFF",
        "SET GLOBAL read_only = OFF",
    ] {
        replica.execute(sql).await?;
    }
    Ok(())
}

async fn connections(server: &MySqlPool) -> anyhow::Result<i64> {
    let count =
        "SELECT COUNT(*) FROM performance_schema.threads WHERE processlist_user = 'returns_app'";
    Ok(sqlx::query_scalar(count).fetch_one(server).await?)
}

#[tokio::test]
async fn p1_p3_p5_every_program_leaves_an_old_primary_within_ten_seconds() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let old = PrivateMysql::start("e2e-old", &options("--server-id=11")).await?;
    let new = PrivateMysql::start("e2e-new", &options("--server-id=12")).await?;
    let mut system = System::create_in(TestDb::create_on(&old.url).await).await?;
    let (old_db, promoted) = (system.db.pool.clone(), MySqlPool::connect_lazy(&new.url)?);
    for sql in [
        "CREATE USER returns_app IDENTIFIED BY 'of-the-test'",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO returns_app",
    ] {
        old_db.execute(sql).await?;
    }
    follow(&promoted, &old.url).await?;
    system
        .db
        .seed_orders(1, FILERS * ORDERS_EACH, CUSTOMER)
        .await;
    let (proxy, url) = MysqlProxy::before(system.db.url()).await;
    let url = url.replace("root@", "returns_app:of-the-test@");
    system.env.insert("DATABASE_URL".to_owned(), url);
    let api = system.start("returns-api").await?;
    let relay = system.start("outbox-relay").await?;
    let consumer = system.start("refund-consumer").await?;
    let filers = Filers::start_with(&system.customer, api.api_address()?, ORDERS_EACH);
    more_returns(&system, &api, 300).await?;

    old_db.execute("SET GLOBAL super_read_only = ON").await?;
    promote(&promoted, &old_db).await?;
    proxy.switch_to(&new.url);
    let switched = Instant::now();
    let url = system.db.url().to_owned();
    system.db = TestDb::at(&url.replace(server_of(&old.url), server_of(&new.url)));
    let before = system.count("SELECT COUNT(*) FROM returns").await?;
    let refunded = "SELECT COUNT(*) FROM returns WHERE status = 'refunded'";
    let refunds_before = system.count(refunded).await?;
    until("new returns on the new server", RECOVERY, async || {
        Ok(system.count("SELECT COUNT(*) FROM returns").await? > before + 50)
    })
    .await?;
    let filed_after = switched.elapsed();
    until("refunds on the new server", RECOVERY, async || {
        Ok(system.count(refunded).await? > refunds_before + 50)
    })
    .await?;
    let refunded_after = switched.elapsed();
    until("no connection to the old server", RECOVERY, async || {
        Ok(connections(&old_db).await? == 0)
    })
    .await?;
    let left_after = switched.elapsed();
    let filed = filers.finish().await;
    system.settled(DEADLINE).await?;
    eprintln!(
        "switchover: returns after {filed_after:?}, refunds after {refunded_after:?}, the old server left after \
         {left_after:?}; {} acknowledged, {} times 503",
        filed.acknowledged.len(),
        filed.unavailable
    );
    ensure!(left_after < RECOVERY, "{left_after:?}");
    acknowledged_are_there(&system, &filed).await?;
    checks::everything(&system).await?;
    for program in [api, relay, consumer] {
        program.stop(DEADLINE).await?;
    }
    Ok(())
}

/// `127.0.0.1:PORT`.
fn server_of(url: &str) -> &str {
    let rest = url.split_once('@').map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(server, _)| server)
}
