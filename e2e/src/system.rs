//! A complete system for one test: a database, two topics, a key pair, a ledger, and the programs that use them.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use shared::domain::event::TopicArgs;
use shared::domain::ids::CustomerId;
use shared::runtime::db::DbFailure;
use shared::test_support::{TestDb, env};
use tempfile::TempDir;
use uuid::Uuid;

use crate::client::Client;
use crate::program::{Env, Program, run};
use crate::until;

/// The customer whose orders are returned.
pub const CUSTOMER: CustomerId = CustomerId(42);

#[derive(Debug)]
pub struct System {
    pub db: TestDb,
    pub brokers: String,
    /// The topics of new returns and of status changes.
    pub topics: [String; 2],
    pub env: Env,
    /// A customer with a token.
    pub customer: Client,
    /// Of the simulated gateway, or of the first account at `returnsctl dev-gateway`.
    pub ledger: PathBuf,
    folder: TempDir,
}

impl System {
    /// Migrates a fresh database and creates fresh topics.
    ///
    /// # Errors
    /// A server is away or `returnsctl` fails.
    pub async fn create() -> anyhow::Result<Self> {
        Self::create_in(TestDb::create().await).await
    }

    /// The same in this database.
    ///
    /// # Errors
    /// As [`System::create`].
    pub async fn create_in(db: TestDb) -> anyhow::Result<Self> {
        Self::create_with(db, &[]).await
    }

    /// The same with additional variables for all programs, `KAFKA_BROKERS` among them.
    ///
    /// # Errors
    /// As [`System::create`].
    pub async fn create_with(db: TestDb, more: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let run_id = Uuid::now_v7().simple();
        let topics = [format!("t{run_id}.returns"), format!("t{run_id}.status")];
        let ledger = folder.path().join("ledger.jsonl");
        let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let mut env = Env::from(
            [
                ("DATABASE_URL", db.url().to_owned()),
                ("KAFKA_BROKERS", env("KAFKA_BROKERS")),
                ("TOPIC_RETURNS", topics[0].clone()),
                ("TOPIC_STATUS", topics[1].clone()),
                ("TOPIC_PARTITIONS", "4".to_owned()),
                ("JWT_PRIVATE_KEY_FILE", file("jwt.pem")),
                ("BISCUIT_PRIVATE_KEY_FILE", file("biscuit.pem")),
                ("AUTH_KEYS_FILE", file("keys.json")),
                ("API_LISTEN", "127.0.0.1:0".to_owned()),
                // No rate limits: all requests come from one address and few callers.
                ("RATE_PER_ADDRESS", "0".to_owned()),
                ("RATE_PER_CALLER", "0".to_owned()),
                ("OPS_LISTEN", "127.0.0.1:0".to_owned()),
                ("REFUND_GATEWAY", "simulated".to_owned()),
                ("SIMULATED_LEDGER", ledger.to_string_lossy().into_owned()),
                ("CONSUMER_GROUP", format!("g{run_id}")),
                // Short, so that a test does not wait long for a lost message.
                ("INITIATED_GRACE_SECS", "2".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let more = more.iter();
        env.extend(more.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        run("returnsctl", &["topics"], &env).await?;
        let user = CUSTOMER.to_string();
        let mint = ["token", "mint", "--user", &user, "--role", "customer"];
        let token = run("returnsctl", &mint, &env).await?;
        Ok(Self {
            db,
            brokers: env["KAFKA_BROKERS"].clone(),
            topics,
            env,
            customer: Client::new(token.trim()),
            ledger,
            folder,
        })
    }

    /// The ledger of a further account at the payment provider.
    pub fn ledger_of(&self, account: &str) -> PathBuf {
        self.folder.path().join(format!("ledger-{account}.jsonl"))
    }

    /// The ledgers of all accounts that were used.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn ledgers(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut ledgers = Vec::new();
        for file in std::fs::read_dir(self.folder.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|name| name == "jsonl") {
                ledgers.push(path);
            }
        }
        Ok(ledgers)
    }

    /// Both topics, as the programs know them.
    pub fn topic_args(&self) -> TopicArgs {
        let [topic_returns, topic_status] = self.topics.clone();
        TopicArgs {
            topic_returns,
            topic_status,
        }
    }

    /// Starts a program with additional variables.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_with(
        &self,
        name: &'static str,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Program> {
        let mut env = self.env.clone();
        for (name, value) in more {
            env.insert((*name).to_owned(), (*value).to_owned());
        }
        Program::start(name, &env).await
    }

    /// # Errors
    /// It does not start.
    pub async fn start(&self, name: &'static str) -> anyhow::Result<Program> {
        self.start_with(name, &[]).await
    }

    /// Sends a record that no consumer can read to the topic of new returns.
    ///
    /// # Errors
    /// Kafka does not take it.
    pub async fn poison(&self, partition: i32) -> anyhow::Result<()> {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        let producer: FutureProducer = client.create()?;
        let record = FutureRecord::<str, str>::to(&self.topics[0]);
        let record = record
            .partition(partition)
            .payload("{\"return_id\": not json");
        let sent = producer.send(record, Duration::from_secs(10)).await;
        sent.map_err(|(error, _)| error)?;
        Ok(())
    }

    /// A number from the database. It retries after a lost connection: a killed server leaves dead connections in the pool.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn count(&self, sql: &'static str) -> anyhow::Result<i64> {
        let mut tries = 0;
        loop {
            match sqlx::query_scalar(sql).fetch_one(&self.db.pool).await {
                Ok(count) => return Ok(count),
                Err(error) if DbFailure::of(&error).is_transient() && tries < 32 => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until every return is `refunded` and the outbox is empty.
    ///
    /// # Errors
    /// Not within `deadline`; with the number of returns in each state.
    pub async fn settled(&self, deadline: Duration) -> anyhow::Result<()> {
        let open = "SELECT (SELECT COUNT(*) FROM returns WHERE status <> 'refunded') + (SELECT COUNT(*) FROM outbox)";
        let waited = until(
            "every return refunded, outbox empty",
            deadline,
            async || Ok(self.count(open).await? == 0),
        )
        .await;
        if let Err(error) = waited {
            let states: Vec<(String, i64)> =
                sqlx::query_as("SELECT status, COUNT(*) FROM returns GROUP BY status")
                    .fetch_all(&self.db.pool)
                    .await?;
            return Err(error.context(format!("{states:?}")));
        }
        Ok(())
    }

    /// Waits until every return is `refunded` or parked, and the outbox is empty. Without idempotency keys an attempt ends
    /// parked if a dead consumer may have sent it and the provider does not know it.
    ///
    /// # Errors
    /// Not within `deadline`.
    pub async fn settled_or_parked(&self, deadline: Duration) -> anyhow::Result<()> {
        let open = "SELECT (SELECT COUNT(*) FROM outbox) + (SELECT COUNT(*) FROM returns r WHERE r.status <> 'refunded' \
                    AND NOT EXISTS (SELECT 1 FROM refunds f WHERE f.return_id = r.id AND f.state = 'parked'))";
        until("every return refunded or parked", deadline, async || {
            Ok(self.count(open).await? == 0)
        })
        .await
    }
}
