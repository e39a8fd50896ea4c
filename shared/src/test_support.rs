//! For tests: a fresh, migrated database, orders to return, and a proxy that breaks connections.

pub mod docs;
pub mod mysql_proxy;

use secrecy::SecretString;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, MySqlConnection};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::domain::ids::{CustomerId, OrderId};
use crate::runtime::db::{Database, DbArgs, pool_options};
use crate::runtime::schema;

/// A database of its own on the server of `DATABASE_URL`, dropped with this value.
#[derive(Debug)]
pub struct TestDb {
    pub pool: MySqlPool,
    url: String,
    admin: MySqlConnectOptions,
    name: String,
}

impl TestDb {
    /// Creates and migrates it.
    ///
    /// # Panics
    /// `DATABASE_URL` is not set or the server is away: `make test` sets both up.
    pub async fn create() -> Self {
        let db = Self::create_empty().await;
        schema::migrate(&db.admin.clone().database(&db.name))
            .await
            .expect("migrate");
        db
    }

    /// Creates it without any table.
    ///
    /// # Panics
    /// As [`TestDb::create`].
    pub async fn create_empty() -> Self {
        let server = env("DATABASE_URL");
        let admin = DbArgs {
            database_url: SecretString::from(server.clone()),
            database_max_connections: 1,
        }
        .options()
        .expect("DATABASE_URL");
        let name = format!("test_{}", Uuid::now_v7().simple());
        let mut conn = admin.connect().await.expect("MySQL of DATABASE_URL");
        conn.execute(AssertSqlSafe(format!(
            "CREATE DATABASE {name} CHARACTER SET utf8mb4"
        )))
        .await
        .expect("CREATE DATABASE");
        conn.close().await.expect("close");
        let options = admin.clone().database(&name);
        Self {
            // A test's own questions wait for a busy server for longer than a product may.
            pool: pool_options(16)
                .acquire_timeout(std::time::Duration::from_secs(30))
                .connect_lazy_with(options),
            url: with_database(&server, &name),
            admin,
            name,
        }
    }

    /// This database as the programs use it.
    pub fn database(&self, max_connections: u32) -> Database {
        Database::unmetered(self.admin.clone().database(&self.name), max_connections)
    }

    /// The URL of this database, for a process under test.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Delivered orders `first..first+count` of `customer`, 49.90 EUR each, all eligible.
    pub async fn seed_orders(&self, first: i64, count: i64, customer: CustomerId) -> Vec<OrderId> {
        let ids: Vec<OrderId> = (first..first + count).map(OrderId).collect();
        self.insert_orders(&ids, customer).await;
        ids
    }

    /// As [`TestDb::seed_orders`], with these ids.
    ///
    /// # Panics
    /// The insert fails.
    pub async fn insert_orders(&self, ids: &[OrderId], customer: CustomerId) {
        let delivered = OffsetDateTime::now_utc() - Duration::days(3);
        for chunk in ids.chunks(500) {
            let mut insert = sqlx::QueryBuilder::new(
                "INSERT INTO orders (id, customer_id, total, currency, status, delivered_at) ",
            );
            insert.push_values(chunk, |mut values, id| {
                values
                    .push_bind(id)
                    .push_bind(customer)
                    .push_bind(rust_decimal::Decimal::new(4990, 2))
                    .push_bind("EUR")
                    .push_bind("delivered")
                    .push_bind(delivered);
            });
            insert
                .build()
                .execute(&self.pool)
                .await
                .expect("seed orders");
        }
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        // A runtime of its own: Drop cannot await, and the test's runtime may be gone.
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                if let Ok(mut conn) = admin.connect().await {
                    let drop = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name}"));
                    // Best effort: the server may be the one a test just killed.
                    let _ = conn.execute(drop).await;
                }
            });
        });
        let _ = dropped.join();
    }
}

/// For a session that holds locks while a test waits: the server ends one of ours that is silent for 30 s, and its locks
/// with it.
///
/// # Panics
/// The session is lost.
pub async fn keep_when_silent(session: &mut MySqlConnection) {
    session
        .execute("SET SESSION wait_timeout = 600")
        .await
        .expect("a session");
}

/// A required variable of the test environment.
///
/// # Panics
/// It is not set.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where tests read the environment"
)]
pub fn env(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with `make test`"))
}

/// `url` with another database name and its query kept.
fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url
        .split_once('?')
        .map_or((url, None), |(b, q)| (b, Some(q)));
    let server = base.rsplit_once('/').map_or(base, |(server, _)| server);
    match query {
        Some(query) => format!("{server}/{name}?{query}"),
        None => format!("{server}/{name}"),
    }
}
