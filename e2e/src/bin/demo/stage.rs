//! Everything that is ready before the first request: schema, topics, orders, tokens.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use e2e::client::Client;
use e2e::program::{Env, run};
use shared::test_support::env;
use sqlx::mysql::MySqlPool;

/// Returns above this amount wait for an admin. Orders of `returnsctl seed` cost less.
const REVIEW_ABOVE: &str = "EUR:500";

pub(crate) struct Stage {
    pub(crate) env: Env,
    /// The folder of the programs' logs, and of this run's `env` file.
    pub(crate) logs: PathBuf,
    pub(crate) customer: Client,
    pub(crate) customer_token: String,
    pub(crate) admin_token: String,
    /// The first of a thousand orders without a return.
    pub(crate) order: i64,
    /// An order whose return needs an admin's approval.
    pub(crate) expensive_order: i64,
}

impl Stage {
    pub(crate) async fn prepare() -> anyhow::Result<Self> {
        let logs = PathBuf::from(env("STACK_DIR")).join(env("STACK_INSTANCE"));
        fs::create_dir_all(&logs)?;
        let env = variables(&logs.join("refunds.jsonl").to_string_lossy());
        run("returnsctl", &["migrate"], &env).await?;
        run("returnsctl", &["topics"], &env).await?;
        let seed = ["seed", "--orders", "1000", "--customer", "42", "--json"];
        let seeded: serde_json::Value =
            serde_json::from_str(&run("returnsctl", &seed, &env).await?)?;
        let customer_token = token(&env, "42", "customer").await?;
        Ok(Self {
            logs,
            customer: Client::new(&customer_token),
            customer_token,
            admin_token: token(&env, "7", "admin").await?,
            order: seeded["first_id"]
                .as_i64()
                .context("first_id of returnsctl seed")?,
            expensive_order: insert_expensive_order(&env["DATABASE_URL"]).await?,
            env,
        })
    }
}

fn variables(ledger: &str) -> Env {
    let mut vars: Env = [
        "DATABASE_URL",
        "KAFKA_BROKERS",
        "JWT_PRIVATE_KEY_FILE",
        "BISCUIT_PRIVATE_KEY_FILE",
        "AUTH_KEYS_FILE",
    ]
    .map(|name| (name.to_owned(), env(name)))
    .into();
    for (name, value) in [
        ("API_LISTEN", "127.0.0.1:0"),
        ("OPS_LISTEN", "127.0.0.1:0"),
        ("REVIEW_ABOVE_AMOUNT", REVIEW_ABOVE),
        ("REFUND_GATEWAY", "simulated"),
        ("SIMULATED_LEDGER", ledger),
    ] {
        vars.insert(name.to_owned(), value.to_owned());
    }
    vars
}

async fn token(env: &Env, user: &str, role: &str) -> anyhow::Result<String> {
    let mint = [
        "token", "mint", "--user", user, "--role", role, "--ttl", "12h",
    ];
    Ok(run("returnsctl", &mint, env).await?.trim().to_owned())
}

async fn insert_expensive_order(database_url: &str) -> anyhow::Result<i64> {
    let pool = MySqlPool::connect(database_url).await?;
    let (id,): (i64,) = sqlx::query_as("SELECT MAX(id) + 1 FROM orders")
        .fetch_one(&pool)
        .await?;
    sqlx::query(
        "INSERT INTO orders (id, customer_id, total, currency, status, delivered_at) \
         VALUES (?, 42, 899, 'EUR', 'delivered', UTC_TIMESTAMP() - INTERVAL 1 DAY)",
    )
    .bind(id)
    .execute(&pool)
    .await?;
    pool.close().await;
    Ok(id)
}
