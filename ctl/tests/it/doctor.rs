//! `doctor`: one line per check, and an exit code that a script can act on.

use serde_json::Value;
use shared::test_support::TestDb;
use tempfile::TempDir;

use crate::harness::{Ran, Topics, expect_code, returnsctl, run};

struct Clinic {
    db: TestDb,
    topics: Topics,
    folder: TempDir,
}

impl Clinic {
    async fn new() -> Self {
        Self {
            db: TestDb::create().await,
            topics: Topics::new(),
            folder: TempDir::new().expect("a folder"),
        }
    }

    fn examine(&self, database_url: &str, brokers: &str, more: &[(&str, &str)]) -> Ran {
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

    fn examine_all(&self) -> Ran {
        self.examine(self.db.url(), &self.topics.brokers, &[])
    }
}

/// `name` -> `verdict` of every line that is not ok.
fn ailments(ran: &Ran) -> Vec<(String, String)> {
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
    let clinic = Clinic::new().await;
    expect_code(0, &["topics"], &clinic.topics.variables());
    let ran = clinic.examine_all();
    assert_eq!(ran.code, 0, "{ran:?}");
    let expected = [
        pair(&format!("topic {} copies", clinic.topics.returns), "warn"),
        pair(&format!("topic {} copies", clinic.topics.status), "warn"),
        pair("token keys", "warn"),
    ];
    assert_eq!(ailments(&ran), expected);
    assert_eq!(ran.json()["ok"], true);
}

#[tokio::test]
async fn missing_topics_and_schema_are_problems() {
    let clinic = Clinic::new().await;
    let empty = TestDb::create_empty().await;
    let ran = clinic.examine(empty.url(), &clinic.topics.brokers, &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let found = ailments(&ran);
    for expected in [
        pair("schema", "fail"),
        pair(&format!("topic {}", clinic.topics.returns), "fail"),
        pair(&format!("topic {}", clinic.topics.status), "fail"),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
    // Looking made nothing.
    let ran = clinic.examine_all();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(!clinic.folder.path().join(".stack").exists());
}

#[tokio::test]
async fn a_server_that_is_away_ends_with_2() {
    let clinic = Clinic::new().await;
    expect_code(0, &["topics"], &clinic.topics.variables());
    let mysql_away = clinic.examine(
        "mysql://u:s3cret@127.0.0.1:1/d",
        &clinic.topics.brokers,
        &[],
    );
    assert_eq!(mysql_away.code, 2, "{mysql_away:?}");
    assert!(ailments(&mysql_away).contains(&pair("mysql connection", "unreachable")));
    assert!(!format!("{mysql_away:?}").contains("s3cret"));
    let kafka_away = clinic.examine(clinic.db.url(), "127.0.0.1:1", &[]);
    assert_eq!(kafka_away.code, 2, "{kafka_away:?}");
    assert!(ailments(&kafka_away).contains(&pair("kafka connection", "unreachable")));
}

#[tokio::test]
async fn an_inbox_that_forgets_too_early_is_a_problem() {
    let clinic = Clinic::new().await;
    expect_code(0, &["topics"], &clinic.topics.variables());
    for (days, code) in [("7", 1), ("8", 0)] {
        let ran = clinic.examine(
            clinic.db.url(),
            &clinic.topics.brokers,
            &[("INBOX_RETENTION_DAYS", days)],
        );
        assert_eq!(ran.code, code, "{days}: {ran:?}");
    }
}

#[tokio::test]
async fn people_read_one_line_per_check() {
    let clinic = Clinic::new().await;
    let mut variables = clinic.topics.variables();
    variables.push(("DATABASE_URL", clinic.db.url()));
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
