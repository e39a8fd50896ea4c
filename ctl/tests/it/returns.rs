//! `returns list` and `show`: every return, not only those with a refund that waits for a person.

use serde_json::{Value, json};
use shared::domain::ids::ReturnId;
use shared::domain::status::Action;
use shared::test_support::TestDb;

use crate::harness::{Ran, expect_code};
use crate::refunds::Fixture;

fn returns(db: &TestDb, code: i32, args: &[&str]) -> Ran {
    let args = [&["returns"], args].concat();
    expect_code(code, &args, &[("DATABASE_URL", db.url())])
}

fn listed(db: &TestDb, args: &[&str]) -> (Vec<i64>, Value) {
    let report = returns(db, 0, &[&["list", "--json"], args].concat()).json();
    let ids = report["returns"].as_array().expect("a list").iter();
    let ids = ids.map(|one| one["return_id"].as_i64().expect("an id"));
    (ids.collect(), report["next_after"].clone())
}

#[tokio::test]
async fn returns_are_listed_by_state_review_and_age() {
    let fixture = Fixture::new().await;
    assert_eq!(listed(&fixture.db, &[]), (vec![], Value::Null));
    let filed = fixture.file(1).await;
    let parked = fixture.parked(2).await;
    let failed = fixture.failed(3).await;
    let in_review = fixture.file(4).await;
    fixture
        .execute(
            "UPDATE returns SET review_required = 1 WHERE id = ?",
            in_review.0,
        )
        .await;
    let cancelled = fixture.file(5).await;
    fixture.advance(cancelled, &[Action::Cancel]).await;
    let all = [filed, parked, failed, in_review, cancelled].map(|id| id.0);
    assert_eq!(listed(&fixture.db, &[]).0, all);
    for (args, ids) in [
        (&["--status", "cancelled"][..], &[cancelled][..]),
        (&["--status", "initiated"], &[filed, in_review]),
        (&["--in-review"], &[in_review]),
        (&["--stuck"], &[]),
        (&["--order", "3"], &[failed]),
        (
            &["--customer", "42", "--status", "refund_pending"],
            &[parked],
        ),
        (&["--customer", "43"], &[]),
    ] {
        let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
        assert_eq!(listed(&fixture.db, args).0, ids, "{args:?}");
    }
    // An hour later: what a program should have moved is stuck; what waits for a person, and what ended, is not.
    fixture
        .execute(
            "UPDATE returns SET updated_at = updated_at - INTERVAL 61 MINUTE WHERE id > ?",
            0,
        )
        .await;
    assert_eq!(listed(&fixture.db, &["--stuck"]).0, [filed.0]);
    fixture
        .execute(
            "UPDATE refunds SET state = 'unknown' WHERE return_id = ?",
            parked.0,
        )
        .await;
    assert_eq!(listed(&fixture.db, &["--stuck"]).0, [filed.0, parked.0]);
    let (page, after) = listed(&fixture.db, &["--limit", "2"]);
    assert_eq!((page.as_slice(), &after), (&all[..2], &json!(all[1])));
    let after = after.to_string();
    let (rest, _) = listed(&fixture.db, &["--after", &after]);
    assert_eq!(rest, all[2..]);
    let text = returns(&fixture.db, 0, &["list"]).stdout;
    for part in ["initiated", "in review", "49.90 EUR", "61 min"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn a_return_is_shown_with_its_history() {
    let fixture = Fixture::new().await;
    let id = fixture.failed(1).await;
    let name = id.to_string();
    let shown = returns(&fixture.db, 0, &["show", &name, "--json"]).json();
    for (field, value) in [
        ("return_id", json!(id.0)),
        ("order_id", json!(1)),
        ("customer_id", json!(42)),
        ("status", json!("refund_failed")),
        ("reason", json!("too small")),
        ("review_required", json!(false)),
        ("refund_amount", json!("49.90")),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    let events = shown["events"].as_array().expect("a list").iter();
    let types: Vec<&str> = events
        .filter_map(|one| one["event_type"].as_str())
        .collect();
    assert_eq!(
        types,
        [
            "return.initiated",
            "return.approved",
            "refund.requested",
            "refund.failed"
        ]
    );
    // A customer's words must not move the cursor of an operator's terminal.
    fixture
        .execute(
            "UPDATE returns SET reason = 'a\n\u{1b}[2Jb' WHERE id = ?",
            id.0,
        )
        .await;
    let text = returns(&fixture.db, 0, &["show", &name]).stdout;
    assert!(text.contains(r"a\n\u{1b}[2Jb"), "{text}");
    assert!(
        text.contains(&format!("returnsctl refunds show {id}")),
        "{text}"
    );
    let none = returns(&fixture.db, 1, &["show", &ReturnId(99).to_string()]);
    assert!(
        none.stderr.contains("there is no return 99"),
        "{}",
        none.stderr
    );
}
