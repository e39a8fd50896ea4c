//! `outbox stats`, `peek` and `parked`, which change nothing.

use serde_json::{Value, json};
use shared::domain::ids::{OrderId, Shard};
use uuid::Uuid;

use super::{FOLLOWS, Fixture, REFUSED};

#[tokio::test]
async fn stats_show_rows_ages_and_leases_of_every_shard() {
    let fixture = Fixture::new().await;
    fixture.wait_in_outbox(5, 3, 1).await;
    fixture.wait_in_outbox(5, 4, 2).await;
    fixture.park(6, 5, 1, REFUSED).await;
    fixture.run(
        "UPDATE outbox_lease SET owner = 'relay-a', epoch = 7, lease_until = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR \
         WHERE shard = CRC32('5') & 15",
    )
    .await;
    fixture.run(
        "UPDATE outbox_lease SET owner = 'relay-b', lease_until = UTC_TIMESTAMP(6) - INTERVAL 60 SECOND \
         WHERE shard = CRC32('6') & 15",
    )
    .await;
    let stats = fixture.read(&["stats"]);
    let of = |order: i64| &stats["shards"][usize::from(Shard::of(OrderId(order)).0)];
    assert_eq!(stats["shards"].as_array().map(Vec::len), Some(16));
    assert_eq!(
        (&of(5)["waiting_rows"], &of(5)["epoch"]),
        (&2.into(), &7.into())
    );
    assert_eq!(of(5)["owner"], "relay-a");
    let between = |value: &Value, low: f64, high: f64| {
        let value = value.as_f64().expect("a number");
        assert!((low..high).contains(&value), "{value}");
    };
    between(&of(5)["oldest_age_secs"], 90.0, 150.0);
    between(&of(5)["lease_left_secs"], 3_540.0, 3_600.0);
    between(&of(6)["lease_left_secs"], -120.0, -60.0);
    assert_eq!(
        (&of(6)["parked_rows"], &of(6)["oldest_age_secs"]),
        (&1.into(), &Value::Null)
    );
    let totals = &stats["totals"];
    assert_eq!(
        (&totals["waiting_rows"], &totals["parked_rows"]),
        (&2.into(), &1.into())
    );
    assert_eq!(
        (&totals["owned_shards"], &totals["relays"]),
        (&1.into(), &1.into()),
        "expired is not owned"
    );
    let text = fixture.outbox(0, &["stats"]).stdout;
    for part in [
        "relay-a",
        " min left",
        "expired ",
        "free",
        "returnsctl outbox parked",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn peek_shows_waiting_and_parked_rows_in_the_order_of_their_ids() {
    let fixture = Fixture::new().await;
    let parked = fixture.park(5, 3, 1, REFUSED).await;
    fixture.park(5, 9, 3, FOLLOWS).await;
    fixture.wait_in_outbox(5, 4, 2).await;
    fixture.wait_in_outbox(6, 5, 1).await;
    let shard = Shard::of(OrderId(5)).to_string();
    for args in [&["peek", "--order", "5"][..], &["peek", "--shard", &shard]] {
        let rows = fixture.read(args);
        let seen: Vec<(&Value, &Value)> = rows["rows"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|row| (&row["id"], &row["state"]))
            .collect();
        let [p, w] = [json!("parked"), json!("waiting")];
        assert_eq!(seen, [(&3.into(), &p), (&4.into(), &w), (&9.into(), &p)]);
    }
    // Of all shards, the oldest rows first.
    let rows = fixture.read(&["peek"]);
    let ids: Vec<&Value> = rows["rows"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| &row["id"])
        .collect();
    assert_eq!(ids, [3, 4, 5, 9]);
    let rows = fixture.read(&["peek", "--order", "5", "--limit", "1"]);
    assert_eq!(rows["rows"].as_array().map(Vec::len), Some(1));

    let row = &fixture.read(&["peek", "--event", &parked.to_string()])["rows"][0];
    assert_eq!(row["first_error"], REFUSED);
    assert_eq!(
        (&row["payload_text"], &row["payload_bytes"]),
        (&json!(r#"{"a":"ö"}"#), &10.into())
    );
    let headers = row["headers"].as_array().expect("a list");
    assert!(headers.contains(&json!({"name": "ce_id", "value": parked.to_string()})));
    assert!(headers.iter().any(|header| header["name"] == "traceparent"));
    assert!(
        headers
            .iter()
            .all(|header| header["name"] != "x-outbox-epoch")
    );
    let text = fixture
        .outbox(0, &["peek", "--event", &parked.to_string()])
        .stdout;
    assert!(text.contains(r#"payload (10 bytes): {"a":"ö"}"#), "{text}");

    fixture.outbox(1, &["peek", "--event", &Uuid::now_v7().to_string()]);
    fixture.outbox(64, &["peek", "--order", "5", "--shard", "1"]);
    fixture.outbox(64, &["peek", "--shard", "16"]);
}

#[tokio::test]
async fn parked_shows_the_refused_event_and_the_number_of_followers() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.read(&["parked"])["orders"], json!([]));
    // A follower with a lower id than the refused event: another return of the order came back from a redrive.
    fixture.park(5, 2, 1, FOLLOWS).await;
    let culprit = fixture.park(5, 3, 2, REFUSED).await;
    fixture.park(5, 9, 3, FOLLOWS).await;
    fixture.park(6, 5, 1, REFUSED).await;
    let report = fixture.read(&["parked"]);
    assert_eq!(
        (&report["parked_rows"], &report["parked_orders"]),
        (&4.into(), &2.into())
    );
    let report = fixture.read(&["parked", "--order", "5"]);
    assert_eq!(report["orders"].as_array().map(Vec::len), Some(1));
    let order = &report["orders"][0];
    assert_eq!(
        (&order["parked_rows"], &order["followers"]),
        (&3.into(), &2.into())
    );
    assert_eq!(order["culprit"]["event_id"], culprit.to_string());
    assert_eq!(order["culprit"]["first_error"], REFUSED);
    let text = fixture.outbox(0, &["parked"]).stdout;
    assert!(
        text.contains(REFUSED) && text.contains("4 rows of 2 orders"),
        "{text}"
    );

    fixture.act(0, &["discard", "--event", &culprit.to_string()]);
    let order = &fixture.read(&["parked", "--order", "5"])["orders"][0];
    assert_eq!(
        (&order["culprit"], &order["followers"]),
        (&Value::Null, &2.into())
    );
}
