//! `dead-letters`: shown safely, sent again byte for byte, removed only after an acknowledgement or by a named person.

mod again;

use std::collections::HashMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::test_support::TestDb;
use shared::test_support::mysql_proxy::{Cut, MysqlProxy};
use sqlx::FromRow;

use crate::harness::{Ran, Topics, await_lock_waiter, expect_code, lists, returnsctl, run};

const DEADLINE: Duration = Duration::from_secs(30);

struct Fixture {
    db: TestDb,
    topics: Topics,
}

/// A dead letter that a test inserts.
#[derive(Clone)]
struct DeadLetter {
    partition: i32,
    offset: i64,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Value,
    reason: &'static str,
}

/// A record as it stands in Kafka.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    partition: i32,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

#[derive(Debug, FromRow)]
struct Action {
    actor_id: String,
    verb: String,
    reason: String,
    details: String,
}

impl Action {
    fn details(&self) -> Value {
        serde_json::from_str(&self.details).expect("JSON")
    }
}

fn dead_letter() -> DeadLetter {
    DeadLetter {
        partition: 1,
        offset: 12,
        key: Some(b"123".to_vec()),
        payload: Some(b"{}".to_vec()),
        headers: json!([]),
        reason: "missing_field",
    }
}

impl Fixture {
    async fn new() -> Self {
        let fixture = Self {
            db: TestDb::create().await,
            topics: Topics::new(),
        };
        expect_code(
            0,
            &["topics", "--partitions", "3"],
            &fixture.topics.variables(),
        );
        fixture
    }

    async fn insert(&self, letter: &DeadLetter) -> i64 {
        let headers = letter.headers.to_string().into_bytes();
        self.insert_as(letter, &self.topics.returns, headers).await
    }

    async fn insert_as(&self, letter: &DeadLetter, topic: &str, headers: Vec<u8>) -> i64 {
        let inserted = sqlx::query(
            "INSERT INTO dead_letters (topic, partition_id, offset_id, record_time, msg_key, payload, headers, reason, \
             received_at) VALUES (?, ?, ?, 1795400000123, ?, ?, ?, ?, UTC_TIMESTAMP(6))",
        )
        .bind(topic)
        .bind(letter.partition)
        .bind(letter.offset)
        .bind(&letter.key)
        .bind(&letter.payload)
        .bind(headers)
        .bind(letter.reason)
        .execute(&self.db.pool)
        .await
        .expect("insert");
        i64::try_from(inserted.last_insert_id()).expect("small")
    }

    fn query(&self, code: i32, args: &[&str]) -> Ran {
        let args = [&["dead-letters"], args].concat();
        expect_code(code, &args, &[("DATABASE_URL", self.db.url())])
    }

    /// As a named person with a reason.
    #[track_caller]
    fn act(&self, code: i32, args: &[&str]) -> Ran {
        self.act_at(code, &self.topics.brokers, args)
    }

    #[track_caller]
    fn act_at(&self, code: i32, brokers: &str, args: &[&str]) -> Ran {
        let who = ["--json", "--by", "j.doe", "--reason", "INC-9: größer"];
        let variables = [("DATABASE_URL", self.db.url()), ("KAFKA_BROKERS", brokers)];
        let ran = run(&[&["dead-letters"], args, &who].concat(), &variables);
        assert_eq!(ran.code, code, "{ran:?}");
        ran
    }

    fn spawn(&self, args: &[&str]) -> Child {
        let who = ["--json", "--by", "j.doe", "--reason", "x"];
        let variables = [
            ("DATABASE_URL", self.db.url()),
            ("KAFKA_BROKERS", self.topics.brokers.as_str()),
        ];
        returnsctl(&[&["dead-letters"], args, &who].concat(), &variables)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the built program runs")
    }

    async fn left(&self) -> Vec<i64> {
        sqlx::query_scalar("SELECT id FROM dead_letters ORDER BY id")
            .fetch_all(&self.db.pool)
            .await
            .expect("dead letters")
    }

    async fn actions(&self) -> Vec<Action> {
        sqlx::query_as(
            "SELECT actor_id, verb, reason, CAST(details AS CHAR) AS details FROM operator_actions ORDER BY id",
        )
        .fetch_all(&self.db.pool)
        .await
        .expect("actions")
    }

    /// The first `count` records of the topic.
    fn records(&self, count: usize) -> Vec<Record> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.topics.brokers)
            .set("group.id", "unused")
            .set("fetch.message.max.bytes", "20000000")
            .create()
            .expect("a consumer");
        let mut partitions = TopicPartitionList::new();
        for partition in 0..3 {
            partitions
                .add_partition_offset(&self.topics.returns, partition, Offset::Beginning)
                .expect("an offset");
        }
        consumer.assign(&partitions).expect("assign");
        let deadline = Instant::now() + DEADLINE;
        let mut records = Vec::new();
        while records.len() < count {
            assert!(Instant::now() < deadline, "{} came", records.len());
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                records.push(Record::copy(&message));
            }
        }
        records
    }
}

impl Record {
    fn copy(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map(|headers| {
            let copied = headers.iter();
            copied
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect()
        });
        Self {
            partition: message.partition(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[tokio::test]
async fn p10_a_redriven_record_is_the_original_byte_for_byte() {
    let fixture = Fixture::new().await;
    let binary = DeadLetter {
        key: Some(vec![0, 0xff]),
        payload: Some(b"\x00\xffnot json\x1b".to_vec()),
        headers: json!([["b", "00ff"], ["a", null], ["b", ""], ["größe", "78"]]),
        ..dead_letter()
    };
    let empty = DeadLetter {
        partition: 2,
        offset: 3,
        key: Some(Vec::new()),
        payload: Some(Vec::new()),
        ..dead_letter()
    };
    let bare = DeadLetter {
        partition: 0,
        offset: 0,
        key: None,
        payload: None,
        ..dead_letter()
    };
    // Almost all that the topic takes.
    let big = DeadLetter {
        offset: 13,
        payload: Some(
            (0..1_040_000_u32)
                .map(|n| n.to_le_bytes()[0] ^ 0xa5)
                .collect(),
        ),
        ..dead_letter()
    };
    let letters = [binary, empty, bare, big];
    let mut ids = Vec::new();
    for one in &letters {
        ids.push(fixture.insert(one).await.to_string());
    }
    let mut args = vec!["redrive"];
    args.extend(ids.iter().map(String::as_str));
    let report = fixture.act(0, &args).json();
    assert_eq!(report["redriven"].as_array().map(Vec::len), Some(4));
    assert_eq!(
        (&report["complete"], &report["skipped"]),
        (&json!(true), &json!([]))
    );

    let mut expected: Vec<Record> = Vec::new();
    for one in &letters {
        let from = format!(
            "{}/{}/{}",
            fixture.topics.returns, one.partition, one.offset
        );
        let mut headers: Vec<(String, Option<Vec<u8>>)> = Vec::new();
        if one.headers != json!([]) {
            headers = vec![
                ("b".to_owned(), Some(vec![0, 0xff])),
                ("a".to_owned(), None),
                ("b".to_owned(), Some(Vec::new())),
                ("größe".to_owned(), Some(b"x".to_vec())),
            ];
        }
        headers.push(("x-redriven-from".to_owned(), Some(from.into_bytes())));
        expected.push(Record {
            partition: one.partition,
            key: one.key.clone(),
            payload: one.payload.clone(),
            headers,
        });
    }
    let mut records = fixture.records(4);
    records.sort_by_key(|record| record.partition);
    expected.sort_by_key(|record| record.partition);
    assert!(records == expected, "byte for byte");
    assert!(fixture.left().await.is_empty());

    let actions = fixture.actions().await;
    assert_eq!(actions.len(), 4);
    for (one, action) in letters.iter().zip(&actions) {
        assert_eq!(
            (
                action.actor_id.as_str(),
                action.verb.as_str(),
                action.reason.as_str()
            ),
            ("j.doe", "dead_letter.redrive", "INC-9: größer")
        );
        let details: Value = serde_json::from_str(&action.details).expect("JSON");
        let digest = one.payload.as_deref().map(sha256);
        assert_eq!(details["payload_sha256"], json!(digest));
        assert_eq!(details["offset"], one.offset);
        assert_eq!(details["redriven_to"]["partition"], one.partition);
    }
}

#[tokio::test]
async fn p10_a_missing_id_is_skipped_and_the_others_are_sent() {
    let fixture = Fixture::new().await;
    let gone = fixture.insert(&dead_letter()).await;
    let other = DeadLetter {
        offset: 13,
        ..dead_letter()
    };
    let there = fixture.insert(&other).await;
    fixture.act(0, &["discard", &gone.to_string()]);
    let args = ["redrive", &gone.to_string(), &there.to_string()];
    let report = fixture.act(1, &args).json();
    assert_eq!(report["skipped"][0]["id"], gone);
    assert_eq!(report["redriven"][0]["id"], there);
    assert_eq!(report["complete"], false);
    assert!(fixture.left().await.is_empty());
}

#[tokio::test]
async fn p10_nothing_is_deleted_while_kafka_is_unreachable() {
    let fixture = Fixture::new().await;
    let id = fixture.insert(&dead_letter()).await;
    let ran = fixture.act_at(2, "127.0.0.1:1", &["redrive", &id.to_string()]);
    assert!(ran.stderr.contains("cannot reach Kafka"), "{}", ran.stderr);
    let ran = fixture.act_at(2, "127.0.0.1:1", &["redrive", "--all"]);
    assert_eq!(ran.json()["complete"], false);
    assert_eq!(fixture.left().await, [id]);
    assert!(fixture.actions().await.is_empty());
}

#[tokio::test]
async fn p10_a_record_that_kafka_refuses_is_kept() {
    let fixture = Fixture::new().await;
    let large = DeadLetter {
        payload: Some(vec![b'x'; 1_500_000]),
        ..dead_letter()
    };
    let id = fixture.insert(&large).await;
    let good = DeadLetter {
        offset: 13,
        ..dead_letter()
    };
    let behind = fixture.insert(&good).await;
    let report = fixture.act(1, &["redrive", "--all"]).json();
    let skipped = &report["skipped"][0];
    assert_eq!(skipped["id"], id);
    let why = skipped["why"].as_str().expect("text");
    assert!(why.contains("max.message.bytes"), "{why}");
    assert_eq!(report["redriven"][0]["id"], behind);
    assert_eq!(report["redriven"].as_array().map(Vec::len), Some(1));
    assert_eq!(fixture.left().await, [id]);
    assert_eq!(fixture.actions().await.len(), 1);
}

#[tokio::test]
async fn p10_a_record_that_cannot_be_sent_as_it_was_is_kept_and_the_others_are_sent() {
    let fixture = Fixture::new().await;
    let spoilt = DeadLetter {
        reason: "unreadable_header",
        ..dead_letter()
    };
    let nowhere = DeadLetter {
        partition: 9,
        ..dead_letter()
    };
    let kept = [
        fixture.insert(&spoilt).await,
        fixture.insert(&nowhere).await,
        fixture
            .insert_as(&dead_letter(), "no.such.topic", b"[]".to_vec())
            .await,
    ];
    let good = DeadLetter {
        offset: 14,
        ..dead_letter()
    };
    fixture.insert(&good).await;
    let report = fixture.act(1, &["redrive", "--all"]).json();
    let skipped = report["skipped"].as_array().expect("a list");
    for (one, (id, why)) in skipped.iter().zip([
        (kept[0], "not kept whole"),
        (kept[1], "3 partitions, none with number 9"),
        (kept[2], "no topic no.such.topic"),
    ]) {
        assert_eq!(one["id"], id);
        assert!(one["why"].as_str().expect("text").contains(why), "{one}");
    }
    assert_eq!(report["redriven"].as_array().map(Vec::len), Some(1));
    assert_eq!(fixture.left().await, kept);
    assert_eq!(fixture.actions().await.len(), 1);
}

/// A crash between acknowledgement and deletion: another session holds the row while the command is killed.
#[tokio::test]
async fn p10_a_redrive_that_is_killed_after_sending_leads_to_a_duplicate_only() {
    let fixture = Fixture::new().await;
    let id = fixture.insert(&dead_letter()).await;
    let mut other = fixture.db.pool.begin().await.expect("begin");
    sqlx::query("SELECT 1 FROM dead_letters FOR UPDATE")
        .execute(&mut *other)
        .await
        .expect("lock");
    let name = id.to_string();
    let args = [
        "dead-letters",
        "redrive",
        &name,
        "--by",
        "j.doe",
        "--reason",
        "x",
    ];
    let variables = [
        ("DATABASE_URL", fixture.db.url()),
        ("KAFKA_BROKERS", fixture.topics.brokers.as_str()),
    ];
    let mut redrive = returnsctl(&args, &variables).spawn().expect("it runs");
    assert_eq!(fixture.records(1).len(), 1);
    redrive.kill().expect("a child of ours");
    redrive.wait().expect("it ends");
    other.rollback().await.expect("rollback");
    assert_eq!(fixture.left().await, [id], "not lost");
    fixture.act(0, &["redrive", &name]);
    let records = fixture.records(2);
    assert_eq!(records[0], records[1], "twice, and the same");
    assert!(fixture.left().await.is_empty());
    assert_eq!(fixture.actions().await.len(), 1);
}

/// Another session deletes the row while the command waits for Kafka.
#[tokio::test]
async fn p10_a_redrive_whose_row_vanished_is_recorded_and_reported() {
    let fixture = Fixture::new().await;
    let one = DeadLetter {
        headers: json!([["a", "00ff"]]),
        ..dead_letter()
    };
    let id = fixture.insert(&one).await;
    let expected = {
        // The record of a row that still exists.
        let there = DeadLetter {
            offset: 13,
            ..one.clone()
        };
        let there = fixture.insert(&there).await;
        fixture.act(0, &["redrive", &there.to_string()]);
        fixture.actions().await.remove(0).details()
    };
    let mut other = fixture.db.pool.begin().await.expect("begin");
    sqlx::query("DELETE FROM dead_letters")
        .execute(&mut *other)
        .await
        .expect("delete");
    let redrive = fixture.spawn(&["redrive", &id.to_string()]);
    assert_eq!(fixture.records(2).len(), 2);
    await_lock_waiter(&fixture.db).await;
    other.commit().await.expect("commit");
    let ran: Ran = redrive.wait_with_output().expect("it ends").into();
    assert_eq!(ran.code, 1, "{ran:?}");
    let report = ran.json();
    let redriven = &report["redriven"][0];
    assert_eq!(
        (&redriven["row"], &redriven["recorded"], &report["complete"]),
        (&json!("was_gone"), &json!(true), &json!(false))
    );
    let actions = fixture.actions().await;
    assert_eq!(actions.len(), 2);
    assert_eq!(
        (actions[1].verb.as_str(), actions[1].actor_id.as_str()),
        ("dead_letter.redrive", "j.doe")
    );
    // Equal to the record of any other row, apart from the values that differ between both.
    let mut details = actions[1].details();
    assert_eq!(details["row"], "was_gone");
    assert_eq!(
        (&details["id"], &details["offset"]),
        (&json!(id), &json!(12))
    );
    for field in ["id", "offset", "received_at", "redriven_to"] {
        let form = |value: &Value| match value {
            Value::String(text) => text.len(),
            _ => 0,
        };
        assert_eq!(form(&details[field]), form(&expected[field]), "{field}");
        details[field] = expected[field].clone();
    }
    details.as_object_mut().expect("an object").remove("row");
    assert_eq!(details, expected);
}

/// MySQL fails between the acknowledgement and the deletion.
#[tokio::test(flavor = "multi_thread")]
async fn p10_a_sent_record_is_reported_even_if_the_database_fails_afterwards() {
    let fixture = Fixture::new().await;
    let id = fixture.insert(&dead_letter()).await;
    let (proxy, url) = MysqlProxy::before(fixture.db.url()).await;
    proxy.arm("/* delete_dead_letter */", Cut::BeforeServer);
    let who = ["--json", "--by", "j.doe", "--reason", "x"];
    let name = id.to_string();
    let args = [&["dead-letters", "redrive", &name], &who[..]].concat();
    let variables = [
        ("DATABASE_URL", url.as_str()),
        ("KAFKA_BROKERS", &fixture.topics.brokers),
    ];
    let ran = expect_code(2, &args, &variables);
    assert!(proxy.sprung());
    let report = ran.json();
    let redriven = &report["redriven"][0];
    assert_eq!(
        (
            &redriven["id"],
            &redriven["row"],
            &redriven["recorded"],
            &report["complete"]
        ),
        (&json!(id), &json!("unknown"), &json!(false), &json!(false))
    );
    assert_eq!(fixture.records(1).len(), 1);
    assert_eq!(fixture.left().await, [id]);
    assert!(fixture.actions().await.is_empty());
    fixture.act(0, &["redrive", &id.to_string()]);
}

#[tokio::test]
async fn discard_needs_a_name_and_a_reason_and_keeps_the_digests() {
    let fixture = Fixture::new().await;
    let id = fixture.insert(&dead_letter()).await;
    let name = id.to_string();
    for more in [&["--by", "j.doe"][..], &["--reason", "x"]] {
        fixture.query(64, &[&["discard", &name], more].concat());
    }
    assert_eq!(fixture.left().await, [id]);
    let report = fixture.act(0, &["discard", &name]).json();
    assert_eq!(report, json!({"action": "discard", "discarded": id}));
    assert!(fixture.left().await.is_empty());
    let actions = fixture.actions().await;
    assert_eq!(actions.len(), 1);
    assert_eq!(actions[0].verb, "dead_letter.discard");
    let details: Value = serde_json::from_str(&actions[0].details).expect("JSON");
    for (field, value) in [
        ("topic", json!(fixture.topics.returns)),
        ("partition", json!(1)),
        ("offset", json!(12)),
        ("record_time", json!(1_795_400_000_123_i64)),
        ("code", json!("missing_field")),
        ("payload_bytes", json!(2)),
        ("payload_sha256", json!(sha256(b"{}"))),
        ("key_sha256", json!(sha256(b"123"))),
        ("redriven_to", json!(null)),
    ] {
        assert_eq!(details[field], value, "{field}");
    }
    let again = fixture.act(1, &["discard", &name]);
    assert!(again.stderr.contains("no dead letter"), "{}", again.stderr);
    assert_eq!(fixture.actions().await.len(), 1);
}

#[tokio::test]
async fn list_and_show_escape_control_characters() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.query(0, &["list", "--json"]).json()["in_all"], 0);
    let nasty = DeadLetter {
        payload: Some(b"\x1b[2Jred\xc3\xa9".to_vec()),
        headers: json!([["x\u{1b}]0;y", "1b5b"], ["raw", "ff00"], ["none", null]]),
        key: Some(vec![0xff]),
        ..dead_letter()
    };
    let id = fixture.insert(&nasty).await;
    let bare = DeadLetter {
        offset: 13,
        key: None,
        payload: None,
        reason: "empty",
        ..dead_letter()
    };
    fixture.insert(&bare).await;
    let report = fixture.query(0, &["list", "--json", "--limit", "1"]).json();
    assert_eq!(
        (&report["in_all"], &report["next_after"]),
        (&json!(2), &json!(id))
    );
    let first = &report["dead_letters"][0];
    assert_eq!(first["record_time"], "2026-11-23T02:13:20.123Z");
    assert_eq!(
        (&first["offset"], &first["payload_bytes"]),
        (&json!(12), &json!(9))
    );
    let rest = fixture
        .query(0, &["list", "--json", "--after", &id.to_string()])
        .json();
    assert_eq!(rest["dead_letters"][0]["code"], "empty");
    let coded = fixture
        .query(0, &["list", "--json", "--code", "empty"])
        .json();
    assert_eq!(coded["dead_letters"].as_array().map(Vec::len), Some(1));

    let ran = fixture.query(0, &["show", &id.to_string(), "--json"]);
    // A parser silently takes the last of two equal names.
    assert_eq!(
        ran.stdout.matches("\"payload_bytes\"").count(),
        1,
        "{}",
        ran.stdout
    );
    let shown = ran.json();
    assert_eq!(shown["payload_bytes"], 9);
    assert_eq!(shown["key"], json!({"hex": "ff"}));
    assert_eq!(shown["payload_text"], "\u{1b}[2Jredé");
    assert_eq!(
        shown["headers"],
        json!([
            {"name": "x\u{1b}]0;y", "value": {"text": "\u{1b}["}},
            {"name": "raw", "value": {"hex": "ff00"}},
            {"name": "none", "value": null}
        ])
    );
    for args in [&["list"][..], &["show", &id.to_string()]] {
        let text = fixture.query(0, args).stdout;
        let commands = text.chars().filter(|c| c.is_control() && *c != '\n');
        assert_eq!(commands.count(), 0, "{text:?}");
    }
    let text = fixture.query(0, &["show", &id.to_string()]).stdout;
    assert!(text.contains(r"\u{1b}[2Jredé"), "{text}");
    fixture.query(1, &["show", "999"]);
    for bad in ["x", "0", "-1"] {
        fixture.query(64, &["show", bad]);
    }
}

#[tokio::test]
async fn raw_writes_the_exact_bytes() {
    let fixture = Fixture::new().await;
    let bytes: Vec<u8> = (0..2_000_003_u32)
        .map(|n| n.to_le_bytes()[1] ^ n.to_le_bytes()[0])
        .collect();
    let letters = HashMap::from([
        (Some(bytes.clone()), bytes),
        (Some(b"a\n".to_vec()), b"a\n".to_vec()),
        (None, Vec::new()),
    ]);
    for (offset, (payload, written)) in (0..).zip(letters) {
        let id = fixture
            .insert(&DeadLetter {
                offset,
                payload,
                ..dead_letter()
            })
            .await;
        let args = ["dead-letters", "show", &id.to_string(), "--raw"];
        let output = returnsctl(&args, &[("DATABASE_URL", fixture.db.url())])
            .output()
            .expect("it runs");
        assert!(output.status.success());
        assert!(output.stdout == written, "{} bytes", output.stdout.len());
    }
    fixture.query(64, &["show", "1", "--raw", "--json"]);
}

#[tokio::test]
async fn headers_in_another_form_are_an_error() {
    let fixture = Fixture::new().await;
    for (offset, headers) in (0..).zip([&b"{"[..], br#"[["a","xyz"]]"#, br#"[["a"]]"#]) {
        let one = DeadLetter {
            offset,
            ..dead_letter()
        };
        let topic = &fixture.topics.returns;
        let id = fixture.insert_as(&one, topic, headers.to_vec()).await;
        let ran = fixture.query(1, &["show", &id.to_string()]);
        assert!(ran.stderr.contains("the headers of"), "{}", ran.stderr);
    }
    let name = DeadLetter {
        offset: 9,
        headers: json!([["a\u{0}b", "00"]]),
        ..dead_letter()
    };
    fixture.insert(&name).await;
    let report = fixture.act(1, &["redrive", "--all"]).json();
    assert_eq!(report["skipped"].as_array().map(Vec::len), Some(4));
    assert_eq!(fixture.left().await.len(), 4);
}

#[test]
fn each_command_explains_itself() {
    let listed = expect_code(0, &["dead-letters", "--help"], &[]).stdout;
    for command in ["list", "show", "redrive", "discard"] {
        let help = expect_code(0, &["dead-letters", command, "--help"], &[]).stdout;
        assert!(help.contains("--json"), "{command}: {help}");
        assert!(lists(&listed, command), "{listed}");
    }
    expect_code(
        64,
        &["dead-letters", "redrive", "--by", "a", "--reason", "b"],
        &[],
    );
}
