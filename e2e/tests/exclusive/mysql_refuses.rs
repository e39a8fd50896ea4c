//! MySQL is there and refuses work for a while, in the ways that servers really do: clients get 201 or 503, no program ends,
//! no record is put aside, and everything is refunded afterwards.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::program::Program;
use e2e::system::{CUSTOMER, System};
use e2e::{checks, until};
use shared::test_support::TestDb;
use sqlx::mysql::MySqlPool;
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::{EXCLUSIVE, FILERS, Filers, acknowledged_are_there, more_returns};

/// How long each fault lasts. Longer than a lease of the relay, a deadline and a pause between two tries.
const FAULT: Duration = Duration::from_secs(4);
const ORDERS_EACH: i64 = 1_000;
const SETTLED: Duration = Duration::from_secs(120);

/// An account as production has it, without SUPER.
const ACCOUNT: &str = "returns_app";

/// The programs with an account of their own, and clients that file.
struct Running {
    system: System,
    programs: Vec<Program>,
    filers: Filers,
    /// As root, who is exempt from the faults.
    root: MySqlPool,
}

impl Running {
    async fn start(db: TestDb) -> anyhow::Result<Self> {
        let mut system = System::create_in(db).await?;
        let orders = FILERS * ORDERS_EACH;
        system.db.seed_orders(1, orders, CUSTOMER).await;
        let root = system.db.pool.clone();
        for sql in [
            format!("DROP USER IF EXISTS {ACCOUNT}"),
            format!("CREATE USER {ACCOUNT} IDENTIFIED BY 'of-the-test'"),
            format!("GRANT ALL ON *.* TO {ACCOUNT}"),
            format!("REVOKE SUPER, CONNECTION_ADMIN ON *.* FROM {ACCOUNT}"),
        ] {
            root.execute(AssertSqlSafe(sql)).await?;
        }
        let login = format!("mysql://{ACCOUNT}:of-the-test@");
        let url = system.db.url().replace("mysql://root@", &login);
        system.env.insert("DATABASE_URL".to_owned(), url);
        let mut programs = Vec::new();
        for name in ["returns-api", "outbox-relay", "refund-consumer"] {
            programs.push(system.start(name).await?);
        }
        let filers = Filers::start_with(&system.customer, programs[0].api_address()?, ORDERS_EACH);
        more_returns(&system, &programs[0], 200).await?;
        Ok(Self {
            system,
            programs,
            filers,
            root,
        })
    }

    async fn execute(&self, sql: impl Into<String>) -> anyhow::Result<()> {
        self.root.execute(AssertSqlSafe(sql.into())).await?;
        Ok(())
    }

    /// Ends every connection of the programs, as a failover or a proxy does.
    async fn cut(&self) -> anyhow::Result<()> {
        // As text: a fault may be that nothing can be prepared.
        let sql = format!(
            "SELECT processlist_id FROM performance_schema.threads WHERE processlist_user = '{ACCOUNT}'"
        );
        let rows = self.root.fetch_all(AssertSqlSafe(sql)).await?;
        let ids: Vec<u64> = rows.iter().map(|row| row.get(0)).collect();
        for id in ids {
            // It may have ended by itself.
            let _ = self.execute(format!("KILL {id}")).await;
        }
        Ok(())
    }

    /// How often the programs met MySQL's error `number`.
    async fn met(&self, number: u16) -> anyhow::Result<u64> {
        let errors = format!("db_client_errors_total{{number=\"{number}\"}}");
        let mut met = 0;
        for program in &self.programs {
            let metric = program.metric_if_any(&errors).await;
            met += metric.with_context(|| program.last_lines())?.unwrap_or(0);
        }
        Ok(met)
    }

    /// What the server has counted since it started.
    async fn status(&self, name: &str) -> anyhow::Result<u64> {
        let show = AssertSqlSafe(format!("SHOW GLOBAL STATUS LIKE '{name}'"));
        let row = self.root.fetch_one(show).await?;
        Ok(row.try_get::<String, _>(1)?.parse()?)
    }

    /// The programs met MySQL's error `number`, and recover.
    async fn recovers_from(self, number: u16, fault: &str) -> anyhow::Result<()> {
        let met = self.met(number).await?;
        eprintln!("{fault}: {met} times error {number}");
        ensure!(met > 0, "{fault}: the fault had no effect");
        self.recovers(fault).await
    }

    /// More returns are filed, all are refunded once, no program has ended, and nothing was put aside.
    async fn recovers(mut self, fault: &str) -> anyhow::Result<()> {
        more_returns(&self.system, &self.programs[0], 200).await?;
        let filed = self.filers.finish().await;
        self.system.settled(SETTLED).await?;
        for program in &mut self.programs {
            ensure!(!program.has_ended()?, "{} has ended", program.name());
        }
        eprintln!(
            "{fault}: {} acknowledged, {} times 503, slowest {:?}",
            filed.acknowledged.len(),
            filed.unavailable,
            filed.slowest
        );
        for (what, sql) in [
            ("dead letters", "SELECT COUNT(*) FROM dead_letters"),
            ("parked events", "SELECT COUNT(*) FROM outbox_parked"),
            (
                "attempts of a second number",
                "SELECT COUNT(*) FROM refunds WHERE attempt > 1",
            ),
        ] {
            let count = self.system.count(sql).await?;
            ensure!(count == 0, "{fault}: {count} {what}");
        }
        acknowledged_are_there(&self.system, &filed).await?;
        checks::everything(&self.system).await
    }
}

#[tokio::test]
async fn too_few_connections_for_the_account_after_a_cut() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let running = Running::start(TestDb::create().await).await?;
    let limit = |most: u32| format!("ALTER USER {ACCOUNT} WITH MAX_USER_CONNECTIONS {most}");
    running.execute(limit(5)).await?;
    running.cut().await?;
    tokio::time::sleep(FAULT).await;
    running.execute(limit(0)).await?;
    running.recovers_from(1226, "MAX_USER_CONNECTIONS 5").await
}

#[tokio::test]
async fn the_server_is_in_offline_mode() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let running = Running::start(TestDb::create().await).await?;
    running.execute("SET GLOBAL offline_mode = ON").await?;
    tokio::time::sleep(FAULT).await;
    running.execute("SET GLOBAL offline_mode = OFF").await?;
    running.recovers_from(3032, "offline_mode").await
}

#[tokio::test]
async fn the_server_prepares_no_more_statements() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let running = Running::start(TestDb::create().await).await?;
    running
        .execute("SET GLOBAL max_prepared_stmt_count = 20")
        .await?;
    running.cut().await?;
    tokio::time::sleep(FAULT).await;
    running
        .execute("SET GLOBAL max_prepared_stmt_count = 16382")
        .await?;
    running.recovers_from(1461, "max_prepared_stmt_count").await
}

/// A login that is refused, as after a changed password.
#[tokio::test]
async fn the_login_is_refused() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let running = Running::start(TestDb::create().await).await?;
    let lock = |verb: &str| format!("ALTER USER {ACCOUNT} ACCOUNT {verb}");
    running.execute(lock("LOCK")).await?;
    running.cut().await?;
    tokio::time::sleep(FAULT).await;
    running.execute(lock("UNLOCK")).await?;
    running.recovers_from(3118, "a locked account").await
}

#[tokio::test]
async fn the_right_to_a_table_is_lost() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let running = Running::start(TestDb::create().await).await?;
    running
        .execute(format!("REVOKE INSERT ON *.* FROM {ACCOUNT}"))
        .await?;
    running.cut().await?;
    tokio::time::sleep(FAULT).await;
    running
        .execute(format!("GRANT INSERT ON *.* TO {ACCOUNT}"))
        .await?;
    // A session sees a right on all databases only after a new login.
    running.cut().await?;
    running.recovers_from(1142, "a lost right").await
}

#[tokio::test]
async fn our_tables_are_altered_while_few_may_be_open() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let running = Running::start(TestDb::create().await).await?;
    running.execute("SET GLOBAL table_open_cache = 4").await?;
    running
        .execute("SET GLOBAL table_definition_cache = 400")
        .await?;
    let (reprepared, overflows) = ("Com_stmt_reprepare", "Table_open_cache_overflows");
    let before = (
        running.status(reprepared).await?,
        running.status(overflows).await?,
    );
    for round in 0..6 {
        for table in ["outbox", "returns", "refunds", "inbox", "idempotency"] {
            let column = format!("unused_{round}");
            running
                .execute(format!(
                    "ALTER TABLE {table} ADD COLUMN {column} INT NULL, ALGORITHM=INPLACE"
                ))
                .await?;
            running
                .execute(format!(
                    "ALTER TABLE {table} DROP COLUMN {column}, ALGORITHM=INPLACE"
                ))
                .await?;
        }
    }
    running
        .execute("SET GLOBAL table_open_cache = 4000")
        .await?;
    let reprepared = running.status(reprepared).await? - before.0;
    let overflows = running.status(overflows).await? - before.1;
    eprintln!("ALTER TABLE: {reprepared} statements prepared again, {overflows} tables closed");
    ensure!(reprepared > 0, "no statement met an altered table");
    ensure!(overflows > 0, "all tables could stay open");
    running.recovers("ALTER TABLE").await
}

/// Error 1114, as of a full disk or tablespace. (A full tablespace of InnoDB ends MySQL 9.7 itself, at a ROLLBACK.)
#[tokio::test]
async fn a_table_is_full() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let running = Running::start(TestDb::create().await).await?;
    let taken = running.system.count("SELECT COUNT(*) FROM inbox").await?;
    let limit = taken + 300;
    running
        .execute(format!(
            "ALTER TABLE inbox ENGINE = MEMORY MAX_ROWS = {limit}"
        ))
        .await?;
    until("the table is full", SETTLED, async || {
        Ok(running.met(1114).await? > 0)
    })
    .await?;
    tokio::time::sleep(FAULT).await;
    running
        .execute("ALTER TABLE inbox ENGINE = InnoDB MAX_ROWS = 0")
        .await?;
    running.recovers_from(1114, "a full table").await
}
