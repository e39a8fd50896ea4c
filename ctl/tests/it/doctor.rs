//! `doctor`: one line per check, and an exit code that a script can act on.

mod work;

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use serde_json::Value;
use shared::domain::ids::CustomerId;
use shared::test_support::TestDb;
use sqlx::{AssertSqlSafe, Executor};
use tempfile::TempDir;

use crate::harness::{Ran, Topics, expect_code, returnsctl, run};

struct Fixture {
    db: TestDb,
    topics: Topics,
    folder: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        Self {
            db: TestDb::create().await,
            topics: Topics::new(),
            folder: TempDir::new().expect("a folder"),
        }
    }

    fn doctor_with(&self, database_url: &str, brokers: &str, more: &[(&str, &str)]) -> Ran {
        let mut variables = self.topics.variables();
        variables.push(("DATABASE_URL", database_url));
        variables.push(("KAFKA_BROKERS", brokers));
        variables.push(("CONSUMER_GROUP", &self.topics.returns));
        variables.extend(more);
        returnsctl(&["doctor", "--json"], &variables)
            .current_dir(self.folder.path())
            .output()
            .expect("the built program runs")
            .into()
    }

    fn doctor(&self) -> Ran {
        self.doctor_with(self.db.url(), &self.topics.brokers, &[])
    }

    /// The check of its consumer group, which is named as the topic.
    fn group(&self) -> String {
        format!("consumer group {}", self.topics.returns)
    }

    async fn execute(&self, sql: &str) {
        let done = self.db.pool.execute(AssertSqlSafe(sql.to_owned())).await;
        done.expect(sql);
    }
}

/// `name` -> `verdict` of every line that is not ok.
fn not_ok(ran: &Ran) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    ran.json()["checks"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|check| check["verdict"] != "ok")
        .inspect(|check| assert!(check["advice"].is_string(), "{check}"))
        .map(|check| (text(&check["name"]), text(&check["verdict"])))
        .collect()
}

fn pair(name: &str, verdict: &str) -> (String, String) {
    (name.to_owned(), verdict.to_owned())
}

#[tokio::test]
async fn a_healthy_development_stack_has_warnings_only() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    let ran = fixture.doctor();
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut expected = Vec::new();
    let durability = "SELECT @@innodb_flush_log_at_trx_commit, @@sync_binlog";
    let (redo_log, binary_log): (u64, u64) = sqlx::query_as(durability)
        .fetch_one(&fixture.db.pool)
        .await
        .expect("settings");
    // The tests' own server does not wait for the disk.
    if redo_log != 1 {
        expected.push(pair("durability of the redo log", "warn"));
    }
    if binary_log != 1 {
        expected.push(pair("durability of the binary log", "warn"));
    }
    expected.extend([
        pair("relays", "warn"),
        pair(&format!("topic {} copies", fixture.topics.returns), "warn"),
        pair(&format!("topic {} copies", fixture.topics.status), "warn"),
        pair(&fixture.group(), "warn"),
        pair("token keys", "warn"),
    ]);
    assert_eq!(not_ok(&ran), expected);
    assert_eq!(ran.json()["ok"], true);
    assert_eq!(ran.json()["waiting_for_a_person"], 0);
}

#[tokio::test]
async fn missing_topics_and_schema_are_problems() {
    let fixture = Fixture::new().await;
    let empty = TestDb::create_empty().await;
    let ran = fixture.doctor_with(empty.url(), &fixture.topics.brokers, &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let found = not_ok(&ran);
    for expected in [
        pair("schema", "fail"),
        pair(&format!("topic {}", fixture.topics.returns), "fail"),
        pair(&format!("topic {}", fixture.topics.status), "fail"),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
    // The command has created nothing.
    let ran = fixture.doctor();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(!fixture.folder.path().join(".stack").exists());
}

#[tokio::test]
async fn orders_that_cannot_be_paid_back_are_counted_with_examples() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    fixture.db.seed_orders(1, 12, CustomerId(42)).await;
    for sql in [
        "UPDATE orders SET total = 705.5, currency = 'JPY' WHERE id IN (1, 2)",
        "UPDATE orders SET total = 705, currency = 'JPY' WHERE id = 3",
        "UPDATE orders SET total = 1.0001, currency = 'BHD' WHERE id = 4",
        "UPDATE orders SET total = 1.001, currency = 'BHD' WHERE id = 5",
        "UPDATE orders SET refunded_amount = 0.005 WHERE id = 6",
        "UPDATE orders SET currency = 'eur' WHERE id = 7",
        "UPDATE orders SET total = 1.0001, currency = 'CLF' WHERE id = 8",
    ] {
        sqlx::query(sql).execute(&fixture.db.pool).await.expect(sql);
    }
    let ran = fixture.doctor();
    assert!(
        not_ok(&ran).contains(&pair("amounts of orders", "warn")),
        "{ran:?}"
    );
    let report = ran.json();
    let checks = report["checks"].as_array().expect("a list");
    let mut amounts = checks
        .iter()
        .filter(|check| check["name"] == "amounts of orders");
    let found = amounts.next().expect("the check")["found"]
        .as_str()
        .expect("text");
    for text in [
        "5 orders with",
        "order 2 over 705.5 JPY",
        "order 4 over 1.0001 BHD",
        "order 6 over 49.90 EUR",
        "order 7 over 49.90 eur",
    ] {
        assert!(found.contains(text), "{text}: {found}");
    }
}

#[tokio::test]
async fn an_unreachable_server_ends_with_2() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    let mysql_away = fixture.doctor_with(
        "mysql://u:s3cret@127.0.0.1:1/d",
        &fixture.topics.brokers,
        &[],
    );
    assert_eq!(mysql_away.code, 2, "{mysql_away:?}");
    assert!(not_ok(&mysql_away).contains(&pair("mysql connection", "unreachable")));
    assert!(!format!("{mysql_away:?}").contains("s3cret"));
    let kafka_away = fixture.doctor_with(fixture.db.url(), "127.0.0.1:1", &[]);
    assert_eq!(kafka_away.code, 2, "{kafka_away:?}");
    assert!(not_ok(&kafka_away).contains(&pair("kafka connection", "unreachable")));
}

#[tokio::test]
async fn an_inbox_that_is_shorter_than_the_retention_is_a_problem() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    for (days, code) in [("7", 1), ("8", 0)] {
        let ran = fixture.doctor_with(
            fixture.db.url(),
            &fixture.topics.brokers,
            &[("INBOX_RETENTION_DAYS", days)],
        );
        assert_eq!(ran.code, code, "{days}: {ran:?}");
    }
}

#[tokio::test]
async fn a_topic_that_keeps_events_for_ever_outlives_every_inbox() {
    let fixture = Fixture::new().await;
    let for_ever = NewTopic::new(&fixture.topics.returns, 1, TopicReplication::Fixed(1))
        .set("retention.ms", "-1");
    let made = fixture
        .topics
        .admin()
        .create_topics([&for_ever], &AdminOptions::new())
        .await;
    made.expect("asked")[0].as_ref().expect("made");
    expect_code(1, &["topics"], &fixture.topics.variables());
    let ran = fixture.doctor_with(
        fixture.db.url(),
        &fixture.topics.brokers,
        &[("INBOX_RETENTION_DAYS", "3650")],
    );
    assert_eq!(ran.code, 1, "{ran:?}");
    let name = format!("topic {} against inbox", fixture.topics.returns);
    assert!(not_ok(&ran).contains(&pair(&name, "fail")), "{ran:?}");
}

#[tokio::test]
async fn the_text_has_one_entry_per_check() {
    let fixture = Fixture::new().await;
    let mut variables = fixture.topics.variables();
    variables.push(("DATABASE_URL", fixture.db.url()));
    let ran = run(&["doctor"], &variables);
    assert!(
        ran.stdout.contains("ok    mysql connection"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("FAIL  topic "), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("-> run `returnsctl topics`"),
        "{}",
        ran.stdout
    );
}
