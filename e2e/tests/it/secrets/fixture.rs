//! A system in which every secret is a canary and every program logs as much as it can.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use e2e::program::run;
use e2e::system::System;
use serde_json::{Value, json};
use shared::test_support::mysql_proxy::MysqlProxy;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use tempfile::TempDir;

use super::canary;
use super::secret;

/// The most verbose log level, except for the library that logs each part of a path: callers may put anything there.
const LOUDEST: &str = "trace,warp=debug";

pub(crate) struct Fixture {
    // Before the system, because its drop uses the system's server.
    _account: Account,
    pub(crate) system: System,
    /// The proxy between the programs and MySQL.
    pub(crate) mysql: MysqlProxy,
    /// Signs JWTs with the key `shop`, as the shop does at login.
    pub(crate) shop_secret: String,
    pub(crate) folder: TempDir,
}

impl Fixture {
    pub(crate) async fn create() -> anyhow::Result<Self> {
        let mut system = System::create().await?;
        let (account, url) = Account::create(&system).await?;
        let (mysql, url) = MysqlProxy::before(&url).await;
        for (name, value) in [
            ("DATABASE_URL", url),
            ("GATEWAY_TOKEN", canary("gateway")),
            ("RUST_LOG", LOUDEST.to_owned()),
        ] {
            system.env.insert(name.to_owned(), value);
        }
        // Minting the first Biscuit creates the key that signs them.
        token(&system, "biscuit", "customer").await?;
        let shop_secret = secret("shop");
        add_shared_secret(&system.env["AUTH_KEYS_FILE"], &shop_secret)?;
        Ok(Self {
            _account: account,
            system,
            mysql,
            shop_secret,
            folder: TempDir::new()?,
        })
    }

    /// A file that only its owner can read.
    pub(crate) fn file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }
}

/// A token of the system's customer, or of a member of staff.
pub(crate) async fn token(system: &System, format: &str, role: &str) -> anyhow::Result<String> {
    let user = if role == "customer" { "42" } else { "7" };
    let mint = [
        "token", "mint", "--format", format, "--user", user, "--role", role,
    ];
    let token = run("returnsctl", &mint, &system.env).await?;
    Ok(token.trim().to_owned())
}

fn add_shared_secret(path: &str, secret: &str) -> anyhow::Result<()> {
    let mut set: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let keys = set["keys"].as_array_mut().context("a JWK set")?;
    let k = BASE64_URL_SAFE_NO_PAD.encode(secret);
    keys.push(json!({ "kty": "oct", "kid": "shop", "alg": "HS256", "k": k }));
    fs::write(path, set.to_string())?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o600),
    )?)
}

/// A MySQL account for one database; dropped with this value.
struct Account {
    name: String,
    admin: MySqlConnectOptions,
}

impl Account {
    /// The account, and the URL of the database with its login.
    async fn create(system: &System) -> anyhow::Result<(Self, String)> {
        let admin = system.db.pool.connect_options();
        let database = admin.get_database().context("a database")?.to_owned();
        let account = Self {
            name: format!("canary_{:016x}", rand::random::<u64>()),
            admin: (*admin).clone(),
        };
        let (name, password) = (&account.name, canary("p/ss@word"));
        for sql in [
            format!("CREATE USER '{name}'@'%' IDENTIFIED BY '{password}'"),
            format!("GRANT ALL PRIVILEGES ON {database}.* TO '{name}'@'%'"),
        ] {
            system.db.pool.execute(AssertSqlSafe(sql)).await?;
        }
        let (_, server) = system.db.url().split_once('@').context("a user")?;
        let password = password.replace('/', "%2F").replace('@', "%40");
        let url = format!("mysql://{name}:{password}@{server}");
        Ok((account, url))
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // A runtime of its own: Drop cannot await.
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let sql = AssertSqlSafe(format!("DROP USER '{name}'"));
                let mut conn = admin.connect().await?;
                conn.execute(sql).await
            })
        });
        let dropped = thread.join().expect("no panic");
        assert!(
            dropped.is_ok() || std::thread::panicking(),
            "the account is left: {dropped:?}"
        );
    }
}
