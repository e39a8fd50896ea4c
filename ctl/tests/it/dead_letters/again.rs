//! What a redrive would do, and records that came back after one.

use serde_json::json;

use super::{DeadLetter, Fixture, dead_letter};

#[tokio::test]
async fn a_dry_run_says_what_would_be_sent_and_kept_and_changes_nothing() {
    let fixture = Fixture::new().await;
    let good = fixture.insert(&dead_letter()).await;
    let lost = DeadLetter {
        offset: 13,
        reason: "unreadable_header",
        ..dead_letter()
    };
    let lost = fixture.insert(&lost).await;
    let gone = DeadLetter {
        offset: 14,
        partition: 77,
        ..dead_letter()
    };
    let gone = fixture.insert(&gone).await;
    let report = fixture.act(1, &["redrive", "--all", "--dry-run"]).json();
    assert_eq!(
        (&report["dry_run"], &report["redriven"], &report["complete"]),
        (&json!(true), &json!([]), &json!(false))
    );
    let would = json!([{"id": good, "topic": fixture.topics.returns, "partition": 1}]);
    assert_eq!(report["would_redrive"], would);
    let kept = report["skipped"].as_array().expect("a list").iter();
    let kept: Vec<i64> = kept.filter_map(|one| one["id"].as_i64()).collect();
    assert_eq!(kept, [lost, gone]);
    let report = fixture
        .act(0, &["redrive", &good.to_string(), "--dry-run"])
        .json();
    assert_eq!(report["skipped"], json!([]));
    assert_eq!(fixture.left().await, [good, lost, gone]);
    assert_eq!(fixture.actions().await.len(), 0);
}

/// A person who sends everything again and again would not see that it helps nothing.
#[tokio::test]
async fn a_record_that_came_back_after_a_redrive_is_marked() {
    let fixture = Fixture::new().await;
    let first = fixture.insert(&dead_letter()).await;
    // "order.returns/1/12" in hexadecimal digits, as the consumer stores values.
    let from = "6f726465722e72657475726e732f312f3132";
    let back = DeadLetter {
        offset: 99,
        headers: json!([["a", "00"], ["x-redriven-from", from]]),
        ..dead_letter()
    };
    let back = fixture.insert(&back).await;
    let twice = DeadLetter {
        offset: 100,
        headers: json!([["x-redriven-from", from], ["x-redriven-from", from]]),
        ..dead_letter()
    };
    let twice = fixture.insert(&twice).await;
    // A value that only looks like it.
    let other = DeadLetter {
        offset: 101,
        headers: json!([["a", null], ["not-x-redriven-from", "00"]]),
        ..dead_letter()
    };
    let other = fixture.insert(&other).await;
    let report = fixture.query(0, &["list", "--json"]).json();
    let lines = report["dead_letters"].as_array().expect("a list").iter();
    let redriven: Vec<(i64, i64)> = lines
        .map(|line| {
            (
                line["id"].as_i64().expect("an id"),
                line["redriven"].as_i64().expect("a number"),
            )
        })
        .collect();
    assert_eq!(redriven, [(first, 0), (back, 1), (twice, 2), (other, 0)]);
    let text = fixture.query(0, &["list"]).stdout;
    assert_eq!(
        text.matches("came back after a redrive").count(),
        2,
        "{text}"
    );
}
