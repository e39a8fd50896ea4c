//! Runs the program in an environment of its own; a topic pair that is deleted with its value.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use shared::test_support::{TestDb, env, until};
use uuid::Uuid;

/// The program with only these variables set, so that the tests' own environment does not leak in.
pub(crate) fn returnsctl(args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_returnsctl"));
    command
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    command
}

/// The output of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("ended by itself"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

pub(crate) fn run(args: &[&str], variables: &[(&str, &str)]) -> Ran {
    returnsctl(args, variables)
        .output()
        .expect("the built program runs")
        .into()
}

/// The run must have ended with this code.
#[track_caller]
pub(crate) fn expect_code(code: i32, args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let ran = run(args, variables);
    assert_eq!(ran.code, code, "{ran:?}");
    ran
}

/// Whether a help text lists this command: at the beginning of a line, not somewhere in a sentence.
pub(crate) fn lists(help: &str, command: &str) -> bool {
    let rest = |line: &'_ str| line.trim_start().strip_prefix(command).map(str::to_owned);
    help.lines()
        .filter_map(rest)
        .any(|rest| rest.starts_with("  "))
}

const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until a session of this database waits for a row lock.
pub(crate) async fn await_lock_waiter(db: &TestDb) {
    until("a session waits for a lock", DEADLINE, async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM performance_schema.data_locks WHERE object_schema = DATABASE() \
             AND lock_status = 'WAITING'",
        )
        .fetch_one(&db.pool)
        .await
        .expect("data_locks");
        waiting == 1
    })
    .await;
}

/// Names for both topics that no other test uses.
pub(crate) struct Topics {
    pub(crate) returns: String,
    pub(crate) status: String,
    pub(crate) brokers: String,
}

impl Topics {
    pub(crate) fn new() -> Self {
        let id = Uuid::now_v7().simple();
        Self {
            returns: format!("test.{id}.returns"),
            status: format!("test.{id}.status"),
            brokers: env("KAFKA_BROKERS"),
        }
    }

    pub(crate) fn variables(&self) -> Vec<(&str, &str)> {
        vec![
            ("KAFKA_BROKERS", &self.brokers),
            ("TOPIC_RETURNS", &self.returns),
            ("TOPIC_STATUS", &self.status),
        ]
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    /// A record that is no event, to the topic of new returns.
    pub(crate) async fn send_one(&self) {
        let producer: FutureProducer = self.client().create().expect("a producer");
        let record = FutureRecord::to(&self.returns).key("1").payload("x");
        let sent = producer.send(record, Duration::from_secs(20)).await;
        sent.expect("sent");
    }

    /// A member of the group that is named as the topic of new returns.
    pub(crate) fn join_group(&self) -> BaseConsumer {
        let mut config = self.client();
        config.set("group.id", &self.returns);
        let member: BaseConsumer = config.create().expect("a consumer");
        member.subscribe(&[&self.returns]).expect("subscribed");
        member
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        // A runtime of its own: Drop cannot await.
        let (admin, names) = (self.admin(), [self.returns.clone(), self.status.clone()]);
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
            // Best effort: a test may not have made them.
            let _ = runtime.block_on(admin.delete_topics(&names, &options));
        });
        let _ = deleted.join();
    }
}
