//! A MySQL database for one test.

use secrecy::SecretString;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, MySqlConnection, Row};
use time::{Duration, OffsetDateTime};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::env;
use crate::domain::ids::{CustomerId, OrderId};
use crate::runtime::db::{Database, DbArgs, session_rules};
use crate::runtime::schema;

/// A database of its own on the server of `DATABASE_URL`.
///
/// It stays when the test ends: `DROP` would take longer than most tests do, and the next run begins with an empty
/// server. A program that fills many of them calls [`TestDb::delete`].
#[derive(Debug)]
pub struct TestDb {
    pub pool: MySqlPool,
    url: String,
    options: MySqlConnectOptions,
}

impl TestDb {
    /// Creates one with the schema of the migrations.
    ///
    /// # Panics
    /// `DATABASE_URL` is not set, or the server cannot be reached: `make test` sets both up.
    pub async fn create() -> Self {
        let db = Self::create_empty().await;
        let schema = SCHEMA.get_or_init(schema_of_migrations).await;
        let mut conn = db.options.connect().await.expect("MySQL of DATABASE_URL");
        conn.execute(AssertSqlSafe(schema.as_str()))
            .await
            .expect("create the tables");
        conn.close().await.expect("close");
        db
    }

    /// As [`TestDb::create`], on the server of `url`.
    ///
    /// # Panics
    /// The server cannot be reached.
    pub async fn create_on(url: &str) -> Self {
        let db = Self::create_empty_on(url).await;
        schema::migrate(&db.options).await.expect("migrate");
        db
    }

    /// Creates one without any table.
    ///
    /// # Panics
    /// As [`TestDb::create`].
    pub async fn create_empty() -> Self {
        Self::create_empty_on(&env("DATABASE_URL")).await
    }

    async fn create_empty_on(server: &str) -> Self {
        let name = format!("test_{}", Uuid::now_v7().simple());
        let options = options(server);
        let mut conn = options.connect().await.expect("MySQL");
        conn.execute(AssertSqlSafe(format!(
            "CREATE DATABASE {name} CHARACTER SET utf8mb4"
        )))
        .await
        .expect("CREATE DATABASE");
        conn.close().await.expect("close");
        Self::at(&with_database(server, &name))
    }

    /// A database that exists.
    ///
    /// # Panics
    /// The URL is no MySQL URL.
    pub fn at(url: &str) -> Self {
        let options = options(url);
        Self {
            // A test's own queries may wait for a busy server longer than a program may.
            pool: MySqlPoolOptions::new()
                .max_connections(16)
                .acquire_timeout(std::time::Duration::from_secs(30))
                .after_connect(|conn, _| {
                    Box::pin(async move {
                        conn.execute(AssertSqlSafe(session_rules())).await?;
                        Ok(())
                    })
                })
                .connect_lazy_with(options.clone()),
            url: url.to_owned(),
            options,
        }
    }

    /// This database as the programs use it.
    pub fn database(&self, max_connections: u32) -> Database {
        Database::unmetered(self.options.clone(), max_connections)
    }

    /// The URL of this database, for a process under test.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Drops the database.
    ///
    /// # Panics
    /// The statement fails.
    pub async fn delete(self) {
        self.pool.close().await;
        let mut conn = self.options.connect().await.expect("MySQL of DATABASE_URL");
        let name = self.options.get_database().expect("a database");
        conn.execute(AssertSqlSafe(format!("DROP DATABASE {name}")))
            .await
            .expect("DROP DATABASE");
        conn.close().await.expect("close");
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

/// The statements that create what the migrations create, taken once per process: they run in a fifth of the time of
/// the migrations, which have tests of their own.
static SCHEMA: OnceCell<String> = OnceCell::const_new();

async fn schema_of_migrations() -> String {
    let template = TestDb::create_empty().await;
    schema::migrate(&template.options).await.expect("migrate");
    let mut conn = template
        .options
        .connect()
        .await
        .expect("MySQL of DATABASE_URL");
    let name = template.options.get_database().expect("a database");
    // The tables come in alphabetical order, so a table may refer to one that does not exist yet.
    let mut script = "SET foreign_key_checks = 0;\n".to_owned();
    for table in names(&mut conn, "SHOW TABLES").await {
        let create = statement(&mut conn, &format!("SHOW CREATE TABLE {table}"), 1).await;
        script += &format!("{create};\n");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")))
            .fetch_one(&mut conn)
            .await
            .expect("COUNT");
        if rows > 0 {
            script += &format!("INSERT INTO {table} SELECT * FROM {name}.{table};\n");
        }
    }
    for trigger in names(&mut conn, "SHOW TRIGGERS").await {
        let create = statement(&mut conn, &format!("SHOW CREATE TRIGGER {trigger}"), 2).await;
        script += &format!("{create};\n");
    }
    conn.close().await.expect("close");
    script
}

/// The first column of each row.
async fn names(conn: &mut MySqlConnection, sql: &'static str) -> Vec<String> {
    let rows = sqlx::raw_sql(sql).fetch_all(conn).await.expect(sql);
    rows.iter().map(|row| row.get(0)).collect()
}

async fn statement(conn: &mut MySqlConnection, sql: &str, column: usize) -> String {
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(conn).await;
    row.expect("SHOW CREATE").get(column)
}

fn options(url: &str) -> MySqlConnectOptions {
    let args = DbArgs {
        database_url: SecretString::from(url),
        database_max_connections: 1,
    };
    args.options().expect("DATABASE_URL")
}

/// For a session that holds locks while a test waits: the server ends a session of ours that is silent for 30 s, and
/// its locks with it.
///
/// # Panics
/// The session is lost.
pub async fn keep_when_silent(session: &mut MySqlConnection) {
    session
        .execute("SET SESSION wait_timeout = 600")
        .await
        .expect("a session");
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
