//! `doctor`: one line per check, and an exit code that a script can act on.

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use serde_json::Value;
use shared::domain::ids::CustomerId;
use shared::test_support::TestDb;
use sqlx::Executor;
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
        pair(&format!("topic {} copies", fixture.topics.returns), "warn"),
        pair(&format!("topic {} copies", fixture.topics.status), "warn"),
        pair("token keys", "warn"),
    ]);
    assert_eq!(not_ok(&ran), expected);
    assert_eq!(ran.json()["ok"], true);
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
async fn refunds_and_records_that_wait_for_a_person_are_counted() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    fixture.db.seed_orders(1, 3, CustomerId(42)).await;
    for sql in [
        "INSERT INTO returns (id, order_id, customer_id, reason, status, version, policy_version, refund_amount, \
         currency, created_at, updated_at) SELECT id, id, 42, 'x', IF(id = 1, 'refund_failed', 'refund_pending'), 1, \
         'x', 1, 'EUR', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM orders",
        "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, created_at, \
         updated_at) SELECT id, 1, id, 1, 'EUR', ELT(id, 'declined', 'parked', 'unknown'), \
         UTC_TIMESTAMP(6) - INTERVAL 200 SECOND, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM returns",
        "INSERT INTO dead_letters (topic, partition_id, offset_id, record_time, headers, reason, received_at) \
         VALUES ('t', 0, 0, 0, '[]', 'empty', UTC_TIMESTAMP(6)), ('t', 0, 1, 0, '[]', 'empty', UTC_TIMESTAMP(6))",
    ] {
        fixture.db.pool.execute(sql).await.expect(sql);
    }
    let person = [
        pair("parked refunds", "warn"),
        pair("failed refunds", "warn"),
        pair("dead letters", "warn"),
    ];
    let ran = fixture.doctor();
    assert_eq!(ran.code, 0, "work for a person is no fault: {ran:?}");
    let found = not_ok(&ran);
    assert!(person.iter().all(|one| found.contains(one)), "{found:?}");
    assert!(ran.stdout.contains("2 records"), "{}", ran.stdout);
    let overdue = "UPDATE refunds SET next_check_at = UTC_TIMESTAMP(6) - INTERVAL 310 SECOND";
    fixture.db.pool.execute(overdue).await.expect("update");
    let ran = fixture.doctor();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(not_ok(&ran).contains(&pair("overdue refunds", "fail")));
    assert!(
        ran.stdout.contains("1 attempt due for more than 5 min"),
        "{}",
        ran.stdout
    );
}

#[tokio::test]
async fn returns_that_no_consumer_claims_are_a_problem() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    fixture.db.seed_orders(1, 4, CustomerId(42)).await;
    // Approved, initiated, waiting for a person's review, and young.
    let sql = "INSERT INTO returns (id, order_id, customer_id, reason, status, version, review_required, policy_version, \
               refund_amount, currency, created_at, updated_at) SELECT id, id, 42, 'x', \
               IF(id = 1, 'approved', 'initiated'), 1, id = 3, 'x', 1, 'EUR', UTC_TIMESTAMP(6), \
               UTC_TIMESTAMP(6) - INTERVAL IF(id = 4, 200, 310) SECOND FROM orders";
    fixture.db.pool.execute(sql).await.expect(sql);
    let ran = fixture.doctor();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(not_ok(&ran).contains(&pair("unclaimed returns", "fail")));
    for part in [
        "2 returns due for more than 5 min",
        "no refund consumer is at work",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let claimed = "UPDATE returns SET updated_at = UTC_TIMESTAMP(6) WHERE id < 3";
    fixture.db.pool.execute(claimed).await.expect("update");
    assert_eq!(fixture.doctor().code, 0);
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
