//! `refunds list` and `show`, which change nothing.

use serde_json::{Value, json};
use shared::domain::ids::ReturnId;
use shared::domain::status::Action;

use super::fixture::{ADA, Fixture};

fn listed(report: &Value) -> Vec<(i64, i64, String)> {
    let lines = report["refunds"].as_array().expect("a list");
    let cell = |line: &Value| {
        (
            line["return_id"].as_i64().expect("an id"),
            line["attempt"].as_i64().expect("a number"),
            line["state"].as_str().expect("a state").to_owned(),
        )
    };
    lines.iter().map(cell).collect()
}

fn line(id: ReturnId, attempt: i64, state: &str) -> (i64, i64, String) {
    (id.0, attempt, state.to_owned())
}

#[tokio::test]
async fn list_shows_what_waits_for_a_person() {
    let fixture = Fixture::new().await;
    let list = |args: &[&str]| {
        let args = [&["list", "--json"], args].concat();
        fixture.query(0, &args).json()
    };
    assert_eq!(listed(&list(&[])), []);
    let parked = fixture.parked(1).await;
    let failed = fixture.failed(2).await;
    let twice = fixture.failed(3).await;
    fixture.attempt(twice, 2, "declined").await;
    let paid = fixture.file(4).await;
    fixture.attempt(paid, 1, "succeeded").await;
    fixture
        .advance(paid, &[Action::Approve, Action::Claim, Action::Confirm])
        .await;
    let waiting = list(&[]);
    let expected = [
        line(parked, 1, "parked"),
        line(failed, 1, "declined"),
        line(twice, 2, "declined"),
    ];
    assert_eq!(listed(&waiting), expected);
    let first = &waiting["refunds"][0];
    for (name, value) in [
        ("status", json!("refund_pending")),
        ("amount", json!("49.90")),
        ("currency", json!("EUR")),
        ("checks", json!(3)),
        ("gateway", json!("simulated")),
        ("gateway_ref", json!(null)),
        ("last_error", json!("not_found")),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    let age = first["age_secs"].as_f64().expect("a number");
    assert!((3_600.0..3_700.0).contains(&age), "{age}");

    assert_eq!(
        listed(&list(&["--state", "declined"])),
        [
            line(failed, 1, "declined"),
            line(twice, 1, "declined"),
            line(twice, 2, "declined")
        ]
    );
    assert_eq!(
        listed(&list(&["--state", "succeeded", "--state", "parked"])),
        [line(parked, 1, "parked"), line(paid, 1, "succeeded")]
    );
    assert_eq!(
        listed(&list(&["--state", "refund_failed"])),
        expected[1..].to_vec()
    );
    let text = fixture.query(0, &["list"]).stdout;
    for part in ["49.90 EUR", "parked", "refund_failed", "60 min"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// Paid, and the provider no longer confirms it, or has taken it back while another return of the order is open.
#[tokio::test]
async fn p6_payments_in_doubt_are_listed() {
    const CONFIRMED: &str = "UPDATE refunds SET last_error = NULL WHERE return_id = ?";
    const WAITS: &str =
        "UPDATE refunds SET last_error = 'reversed_order_has_open_return' WHERE return_id = ?";
    let fixture = Fixture::new().await;
    let mut doubted = Vec::new();
    for (order, last_error) in [
        (1, Some(CONFIRMED)),
        (2, None),
        (3, Some(WAITS)),
        (4, Some(CONFIRMED)),
    ] {
        let id = fixture.file(order).await;
        fixture.attempt(id, 1, "succeeded").await;
        let paid = [Action::Approve, Action::Claim, Action::Confirm];
        fixture.advance(id, &paid).await;
        // The provider may confirm the payment again later.
        if order > 1 {
            fixture.advance(id, &[Action::Disagreement]).await;
        }
        if let Some(set) = last_error {
            fixture.execute(set, id.0).await;
        }
        if last_error != Some(CONFIRMED) {
            doubted.push(line(id, 1, "succeeded"));
        }
    }
    let listed_as = |args: &[&str]| {
        let args = [&["list", "--json"], args].concat();
        listed(&fixture.query(0, &args).json())
    };
    assert_eq!(listed_as(&["--state", "doubtful"]), doubted);
    assert_eq!(
        listed_as(&[]),
        [],
        "the payment stands until a person knows better"
    );
}

/// Only a consumer with the name of its gateway may carry an attempt on. If there is none, people must learn of it.
#[tokio::test]
async fn p6_an_attempt_that_no_consumer_carries_on_is_listed_with_its_gateway() {
    let fixture = Fixture::new().await;
    for (order, state, mins) in [(1, "unknown", 4), (2, "unknown", 6), (3, "claimed", 7)] {
        let id = fixture.file(order).await;
        fixture.attempt(id, 1, state).await;
        fixture.advance(id, &[Action::Approve, Action::Claim]).await;
        let late = "UPDATE refunds SET next_check_at = UTC_TIMESTAMP(6) - INTERVAL ? MINUTE ORDER BY return_id DESC LIMIT 1";
        fixture.execute(late, mins).await;
    }
    let waiting = fixture.query(0, &["list", "--json"]).json();
    let states: Vec<String> = listed(&waiting).into_iter().map(|line| line.2).collect();
    assert_eq!(states, ["unknown", "claimed"]);
    let overdue = fixture.query(0, &["list", "--json", "--state", "overdue"]);
    assert_eq!(listed(&overdue.json()), listed(&waiting));
    let note = "due for 6 min: no refund consumer of gateway simulated is at work";
    let text = fixture.query(0, &["list"]).stdout;
    assert!(text.contains(note), "{text}");
    let id = waiting["refunds"][0]["return_id"].to_string();
    let text = fixture.query(0, &["show", &id]).stdout;
    assert!(text.contains(note), "{text}");
}

#[tokio::test]
async fn pages_of_a_list_hold_whole_returns_and_miss_none() {
    let fixture = Fixture::new().await;
    let mut expected = Vec::new();
    for order in 1..=5 {
        let id = fixture.failed(order).await;
        fixture.attempt(id, 2, "declined").await;
        expected.extend([line(id, 1, "declined"), line(id, 2, "declined")]);
    }
    let mut found = Vec::new();
    let mut after = "0".to_owned();
    let first = ["list", "--json", "--state", "declined", "--limit", "2"];
    let mut page = fixture.query(0, &first).json();
    loop {
        found.extend(listed(&page));
        let Some(next) = page["next_after"].as_i64() else {
            break;
        };
        assert_ne!(next.to_string(), after, "it goes on");
        after = next.to_string();
        page = fixture
            .query(0, &[&first[..], &["--after", &after]].concat())
            .json();
    }
    assert_eq!(found, expected);
}

#[tokio::test]
async fn show_has_the_history_and_the_possible_commands() {
    let fixture = Fixture::new().await;
    let id = fixture.parked(1).await;
    let shown = fixture.show(id);
    assert_eq!(shown["status"], "refund_pending");
    assert_eq!(
        shown["order"],
        json!({"total": "49.90", "refunded_amount": "0.00", "currency": "EUR"})
    );
    assert_eq!(
        shown["attempts"][0]["idempotency_key"],
        format!("key-{id}-1")
    );
    let events = shown["events"].as_array().expect("a list");
    let types: Vec<&Value> = events.iter().map(|event| &event["event_type"]).collect();
    assert_eq!(
        types,
        [
            "return.initiated",
            "return.approved",
            "refund.requested",
            "refund.parked"
        ]
    );
    assert_eq!(events[0]["actor"], "customer:42");
    assert_eq!(shown["mark_request"], Value::Null);
    assert_eq!(
        fixture.possible(id),
        ["request-mark-paid", "request-mark-not-paid"]
    );

    let evidence = "line 14 \u{1b}[2J";
    let name = id.to_string();
    let args = [
        "request-mark-paid",
        &name,
        "--attempt",
        "1",
        "--evidence",
        evidence,
    ];
    fixture.act(0, ADA, &args);
    let request = &fixture.show(id)["mark_request"];
    assert_eq!(
        (&request["requested_by"], &request["open"]),
        (&json!(7), &json!(true))
    );
    assert_eq!(
        fixture.possible(id),
        [
            "request-mark-paid",
            "confirm-mark-paid",
            "request-mark-not-paid"
        ]
    );
    let text = fixture.query(0, &["show", &name]).stdout;
    let shown = fixture.show(id);
    let (filed, changed) = (shown["created_at"].as_str(), shown["updated_at"].as_str());
    let head = format!(
        "return 1 of order 1, customer 42: refund_pending, version 4\n\
         refund 49.90 EUR; order total 49.90 EUR, of which 0.00 EUR is refunded\n\
         filed {}, changed {}\n",
        filed.expect("a time"),
        changed.expect("a time")
    );
    assert!(text.starts_with(&head), "{text}");
    let may_be_done = format!(
        "possible now:\n  \
         returnsctl refunds request-mark-paid 1 --attempt 1 --evidence 'HOW YOU KNOW'\n  \
         returnsctl refunds confirm-mark-paid 1 --request {}\n  \
         returnsctl refunds request-mark-not-paid 1 \\\n    --attempt 1 --evidence 'HOW YOU KNOW'\n",
        request["request"]
    );
    assert!(text.ends_with(&may_be_done), "{text}");
    for part in [
        "key key-",
        "refund.parked",
        "attempt 1 was paid, by user 7, open",
        r"line 14 \u{1b}[2J",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let failed = fixture.failed(2).await;
    assert_eq!(fixture.possible(failed), ["retry", "request-mark-paid"]);
    assert_eq!(
        fixture.show(failed)["commands"][0]["line"],
        format!("returnsctl refunds retry {failed} --attempt 1 --reason 'WHY'")
    );
    // Each attempt that may have paid can be named.
    fixture.attempt(failed, 2, "declined").await;
    assert_eq!(
        fixture.possible(failed),
        ["retry", "request-mark-paid", "request-mark-paid"]
    );
    let filed = fixture.file(3).await;
    assert_eq!(fixture.possible(filed), [""; 0]);
    let text = fixture.query(0, &["show", &filed.to_string()]).stdout;
    assert!(text.contains("No command is possible now."), "{text}");
}
