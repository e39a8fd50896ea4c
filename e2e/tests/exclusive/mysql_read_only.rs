//! The only server is read-only, as after an operator's mistake or while no primary is elected: reads go on, and refused
//! writes cost neither logins nor questions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::stack::PrivateMysql;
use e2e::until;
use shared::domain::ids::CustomerId;
use shared::runtime::db::{Database, DbError, DbFailure};
use shared::test_support::TestDb;
use sqlx::mysql::MySqlPool;
use sqlx::{AssertSqlSafe, Executor};
use tokio::sync::Barrier;

use crate::EXCLUSIVE;

const CONNECTIONS: u32 = 8;
const WRITES: u64 = 200;
const DEADLINE: Duration = Duration::from_secs(30);
const ACCOUNT: &str = "returns_app";

/// Opens every connection.
async fn open_all(db: &Database) -> anyhow::Result<()> {
    let barrier = Arc::new(Barrier::new(usize::try_from(CONNECTIONS)?));
    let opened = (0..CONNECTIONS).map(|_| {
        let barrier = Arc::clone(&barrier);
        db.run::<_, DbError, _>("open", DEADLINE, |conn| {
            Box::pin(async move {
                conn.execute("DO 0").await?;
                barrier.wait().await;
                Ok(())
            })
        })
    });
    for opened in futures_util::future::join_all(opened).await {
        opened?;
    }
    Ok(())
}

async fn write(db: &Database) -> Result<(), DbError> {
    db.run("write", DEADLINE, |conn| {
        Box::pin(async move {
            conn.execute("UPDATE orders SET total = 1 WHERE id = 1")
                .await?;
            Ok(())
        })
    })
    .await
}

/// What the server counted since it started.
async fn counted(server: &MySqlPool, name: &str) -> anyhow::Result<u64> {
    let rows: Vec<(String, String)> = sqlx::query_as("SHOW GLOBAL STATUS")
        .fetch_all(server)
        .await?;
    let status: HashMap<_, _> = rows.into_iter().collect();
    Ok(status.get(name).context("no such status")?.parse()?)
}

#[tokio::test]
async fn refused_writes_on_the_only_server_cost_no_logins() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let server = PrivateMysql::start("e2e-read-only", &[]).await?;
    let root = TestDb::create_on(&server.url).await;
    root.seed_orders(1, 1, CustomerId(42)).await;
    for sql in [
        format!("CREATE USER {ACCOUNT} IDENTIFIED BY 'of-the-test'"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO {ACCOUNT}"),
    ] {
        root.pool.execute(AssertSqlSafe(sql)).await?;
    }
    let login = format!("{ACCOUNT}:of-the-test@");
    let db = TestDb::at(&root.url().replace("root@", &login)).database(CONNECTIONS);
    open_all(&db).await?;
    root.pool.execute("SET GLOBAL super_read_only = ON").await?;

    let (logins, selects) = ("Connections", "Com_select");
    let before = (
        counted(&root.pool, logins).await?,
        counted(&root.pool, selects).await?,
    );
    let began = Instant::now();
    for _ in 0..WRITES {
        let refused = write(&db).await.expect_err("the server is read-only");
        ensure!(refused.failure() == DbFailure::ReadOnly, "{refused:?}");
    }
    // The pause between two questions is a second.
    let seconds = began.elapsed().as_secs() + 1;
    let logins = counted(&root.pool, logins).await? - before.0;
    let selects = counted(&root.pool, selects).await? - before.1;
    eprintln!("{WRITES} refused writes in {seconds} s: {logins} logins, {selects} selects");
    // The first refusal closes its connection, and so does the first question.
    ensure!(logins <= 2 * seconds, "{logins} logins in {seconds} s");
    let all = u64::from(CONNECTIONS) + 1;
    ensure!(selects <= all * seconds, "{selects} selects in {seconds} s");

    root.pool.execute("SET GLOBAL read_only = OFF").await?;
    until("writes are accepted again", DEADLINE, async || {
        Ok(write(&db).await.is_ok())
    })
    .await
}
