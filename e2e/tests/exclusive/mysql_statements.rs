//! How many statements many programs keep prepared in MySQL: for all clients together there may be 16,382 by default.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use e2e::checks;
use e2e::program::Program;
use e2e::system::{CUSTOMER, System};
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::{EXCLUSIVE, FILERS, Filers};

/// A quarter of MySQL's default leaves room for deployments, in which old and new programs run together.
const MOST: u64 = 16_382 / 4;
const ORDERS_EACH: i64 = 1_000;
const LOAD: Duration = Duration::from_secs(20);
const APIS: usize = 8;
const PROGRAMS: [(&str, usize); 3] = [
    ("returns-api", APIS),
    ("refund-consumer", 8),
    ("outbox-relay", 2),
];

/// A program with an account of its own, by which the server's statements are its own.
async fn start(system: &System, name: &'static str, account: &str) -> anyhow::Result<Program> {
    for sql in [
        format!("DROP USER IF EXISTS {account}"),
        format!("CREATE USER {account} IDENTIFIED BY 'of-the-test'"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO {account}"),
    ] {
        system.db.pool.execute(AssertSqlSafe(sql)).await?;
    }
    let login = format!("mysql://{account}:of-the-test@");
    let url = system.db.url().replace("mysql://root@", &login);
    system.start_with(name, &[("DATABASE_URL", &url)]).await
}

/// The statements of each account that are prepared now.
async fn prepared(system: &System) -> anyhow::Result<Vec<(String, i64)>> {
    let sql = "SELECT t.processlist_user, COUNT(*) FROM performance_schema.prepared_statements_instances p \
               JOIN performance_schema.threads t ON t.thread_id = p.owner_thread_id \
               WHERE t.processlist_user LIKE 'statements\\_%' GROUP BY t.processlist_user";
    Ok(sqlx::query_as(sql).fetch_all(&system.db.pool).await?)
}

#[tokio::test]
async fn p12_many_programs_keep_few_statements_prepared() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let system = System::create().await?;
    let orders = i64::try_from(APIS)? * FILERS * ORDERS_EACH;
    system.db.seed_orders(1, orders, CUSTOMER).await;
    let (mut programs, mut most_of) = (Vec::new(), BTreeMap::new());
    for (name, count) in PROGRAMS {
        for _ in 0..count {
            let account = format!("statements_{}", programs.len());
            programs.push(start(&system, name, &account).await?);
            most_of.insert(account, 0);
        }
    }
    let mut filers = Vec::new();
    for (api, first) in programs[..APIS]
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
        for (account, count) in prepared(&system).await? {
            most_of
                .entry(account)
                .and_modify(|most| *most = count.max(*most));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut acknowledged = 0;
    for filers in filers {
        let filed = filers.finish().await.acknowledged.len();
        ensure!(filed > 0, "an api filed nothing");
        acknowledged += filed;
    }
    eprintln!(
        "{PROGRAMS:?}: {acknowledged} filed, at most {most} prepared statements: {most_of:?}"
    );
    ensure!(most < MOST, "{most} prepared statements, not below {MOST}");
    let idle: Vec<_> = most_of.iter().filter(|(_, most)| **most == 0).collect();
    ensure!(idle.is_empty(), "{idle:?} prepared nothing");
    system.settled(Duration::from_secs(180)).await?;
    let refunded = "SELECT COUNT(*) FROM returns WHERE status = 'refunded'";
    let refunded = usize::try_from(system.count(refunded).await?)?;
    ensure!(
        refunded >= acknowledged,
        "{refunded} refunded of {acknowledged}"
    );
    checks::everything(&system).await
}
