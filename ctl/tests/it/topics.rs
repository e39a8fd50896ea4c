//! `topics`: makes what is missing, judges what is there, changes nothing.

use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};

use crate::harness::{Topics, expect_code};

#[test]
fn both_topics_are_created_and_then_found() {
    let topics = Topics::new();
    let args = [
        "topics",
        "--json",
        "--partitions",
        "3",
        "--retention-hours",
        "100",
    ];
    for outcome in ["created", "existed"] {
        let text = expect_code(0, &args, &topics.variables()).json();
        assert_eq!(text[0]["name"], topics.returns);
        assert_eq!(text[1]["name"], topics.status);
        for line in text.as_array().expect("a list") {
            assert_eq!(line["outcome"], outcome);
            assert_eq!(line["partitions"], 3);
            assert_eq!(line["replication"], 1);
            assert_eq!(line["cleanup_policy"], "delete");
            assert_eq!(line["max_message_bytes"], 1_048_588);
            assert_eq!(line["differences"], serde_json::json!([]));
        }
        assert_eq!(text[0]["retention_ms"], 360_000_000);
        assert_eq!(text[1]["retention_ms"], 604_800_000);
    }
}

#[test]
fn one_copy_is_noted_as_fine_for_development() {
    let topics = Topics::new();
    let text = expect_code(0, &["topics"], &topics.variables()).stdout;
    assert!(text.contains("fine for development"), "{text}");
}

#[test]
fn differences_are_listed_and_left_as_they_are() {
    let topics = Topics::new();
    expect_code(0, &["topics", "--partitions", "2"], &topics.variables());
    let args = [
        "topics",
        "--json",
        "--partitions",
        "5",
        "--status-retention-hours",
        "1",
    ];
    for _ in 0..2 {
        let text = expect_code(1, &args, &topics.variables()).json();
        assert_eq!(text[0]["partitions"], 2);
        assert_eq!(
            text[0]["differences"].as_array().map(Vec::len),
            Some(1),
            "{text}"
        );
        assert_eq!(text[1]["retention_ms"], 604_800_000);
        assert_eq!(
            text[1]["differences"].as_array().map(Vec::len),
            Some(2),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_compacted_topic_is_a_difference() {
    let topics = Topics::new();
    let compacted = NewTopic::new(&topics.returns, 12, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact");
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    let made = topics.admin().create_topics([&compacted], &options).await;
    made.expect("asked")[0].as_ref().expect("made");
    let text = expect_code(1, &["topics"], &topics.variables()).stdout;
    assert!(
        text.contains("cleanup.policy=compact, not delete"),
        "{text}"
    );
}

#[test]
fn more_copies_than_brokers_are_refused_with_advice() {
    let topics = Topics::new();
    let ran = expect_code(1, &["topics", "--replication", "9"], &topics.variables());
    assert!(ran.stderr.contains("--replication"), "{}", ran.stderr);
}

#[test]
fn unreachable_brokers_end_with_2() {
    let ran = expect_code(2, &["topics"], &[("KAFKA_BROKERS", "127.0.0.1:1")]);
    assert!(
        ran.stderr.contains("cannot reach Kafka at 127.0.0.1:1\n"),
        "{}",
        ran.stderr
    );
}
