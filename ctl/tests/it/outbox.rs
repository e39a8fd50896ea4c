//! `outbox`: what waits and what is parked, put back or discarded by a named person, and shards held back.
//!
//! The relay's half of each is tested beside the relay.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::ids::{OrderId, Shard};
use shared::test_support::TestDb;
use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, FromRow};
use uuid::Uuid;

use crate::harness::{Ran, expect_code, returnsctl};

const REFUSED: &str = "larger than the topic's max.message.bytes of 1000";
const FOLLOWS: &str = "follows a parked record of the same order";
const PATIENCE: Duration = Duration::from_secs(30);

/// A database with an outbox to operate.
struct Desk {
    db: TestDb,
}

/// What `outbox` and `outbox_parked` share.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
struct Row {
    shard: Shard,
    id: i64,
    event_id: Uuid,
    aggregate_id: i64,
    seq: i32,
    event_type: String,
    topic: String,
    msg_key: String,
    payload: Vec<u8>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    created_at: time::PrimitiveDateTime,
}

#[derive(Debug, FromRow)]
struct Action {
    actor_type: String,
    actor_id: String,
    verb: String,
    event_id: Option<Uuid>,
    return_id: Option<i64>,
    reason: String,
    shard: Option<u8>,
    db_account: Option<String>,
    details: String,
}

impl Desk {
    async fn set() -> Self {
        Self {
            db: TestDb::create().await,
        }
    }

    fn outbox(&self, code: i32, args: &[&str]) -> Ran {
        let args = [&["outbox"], args].concat();
        expect_code(code, &args, &[("DATABASE_URL", self.db.url())])
    }

    fn read(&self, args: &[&str]) -> Value {
        self.outbox(0, &[args, &["--json"]].concat()).json()
    }

    /// As a named person with a reason.
    fn act(&self, code: i32, args: &[&str]) -> Ran {
        let who = ["--json", "--by", "j.doe", "--reason", "INC-7: größer"];
        self.outbox(code, &[args, &who].concat())
    }

    async fn run(&self, sql: &'static str) {
        self.db.pool.execute(sql).await.expect(sql);
    }

    async fn wait_in_outbox(&self, order: i64, id: i64, seq: i32) -> Uuid {
        let event = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO outbox (shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, \
             traceparent, created_at) VALUES (?, ?, ?, ?, ?, 'return.tested', 'some.topic', ?, '{\"a\":\"ö\"}', \
             '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', UTC_TIMESTAMP(6) - INTERVAL 90 SECOND)",
        )
        .bind(Shard::of(OrderId(order)))
        .bind(id)
        .bind(event)
        .bind(order * 10)
        .bind(seq)
        .bind(order.to_string())
        .execute(&self.db.pool)
        .await
        .expect("insert");
        event
    }

    /// A row that was refused (`REFUSED`) or follows one (`FOLLOWS`).
    async fn park(&self, order: i64, id: i64, seq: i32, why: &str) -> Uuid {
        let event = self.wait_in_outbox(order, id, seq).await;
        let mut conn = self.db.pool.acquire().await.expect("a connection");
        park(&mut conn, event, why).await;
        event
    }

    async fn waiting(&self) -> Vec<Row> {
        sqlx::query_as(
            "SELECT shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, traceparent, \
             tracestate, created_at FROM outbox ORDER BY shard, id",
        )
        .fetch_all(&self.db.pool)
        .await
        .expect("outbox")
    }

    async fn parked(&self) -> Vec<Row> {
        sqlx::query_as(
            "SELECT shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, traceparent, \
             tracestate, created_at FROM outbox_parked ORDER BY shard, id",
        )
        .fetch_all(&self.db.pool)
        .await
        .expect("outbox_parked")
    }

    /// The redrive generation of every shard.
    async fn generations(&self) -> Vec<i64> {
        sqlx::query_scalar("SELECT redrive_gen FROM outbox_lease ORDER BY shard")
            .fetch_all(&self.db.pool)
            .await
            .expect("generations")
    }

    async fn generation(&self, order: i64) -> i64 {
        self.generations().await[usize::from(Shard::of(OrderId(order)).0)]
    }

    async fn actions(&self) -> Vec<Action> {
        sqlx::query_as(
            "SELECT actor_type, actor_id, verb, event_id, return_id, reason, shard, db_account, \
             CAST(details AS CHAR) AS details FROM operator_actions ORDER BY id",
        )
        .fetch_all(&self.db.pool)
        .await
        .expect("actions")
    }
}

/// The relay's two statements: the row leaves the outbox and is parked.
async fn park(conn: &mut MySqlConnection, event: Uuid, why: &str) {
    sqlx::query(
        "INSERT INTO outbox_parked (shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, \
         traceparent, tracestate, created_at, first_error, attempts, parked_at) \
         SELECT shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, traceparent, tracestate, \
         created_at, ?, ?, UTC_TIMESTAMP(6) FROM outbox WHERE event_id = ?",
    )
    .bind(why)
    .bind(i32::from(why == REFUSED))
    .bind(event)
    .execute(&mut *conn)
    .await
    .expect("copy");
    sqlx::query("DELETE FROM outbox WHERE event_id = ?")
        .bind(event)
        .execute(conn)
        .await
        .expect("delete");
}

/// Waits until a session of this database waits for a row lock.
async fn somebody_waits_for_a_lock(desk: &Desk) {
    let deadline = Instant::now() + PATIENCE;
    let blocked = || async {
        let found: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM performance_schema.data_locks WHERE object_schema = DATABASE() \
             AND lock_status = 'WAITING'",
        )
        .fetch_one(&desk.db.pool)
        .await
        .expect("data_locks");
        found == 1
    };
    while !blocked().await {
        assert!(Instant::now() < deadline, "nobody waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn spawn(desk: &Desk, args: &[&str]) -> Child {
    returnsctl(args, &[("DATABASE_URL", desk.db.url())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built program runs")
}

fn ended(child: Child) -> Ran {
    child.wait_with_output().expect("it ends").into()
}

#[tokio::test]
async fn p3_redrive_puts_rows_back_as_they_were_and_tells_the_relay() {
    let desk = Desk::set().await;
    let culprit = desk.park(5, 3, 1, REFUSED).await;
    desk.park(5, 8, 2, FOLLOWS).await;
    desk.park(6, 4, 1, REFUSED).await;
    desk.run("UPDATE outbox_parked SET tracestate = 'a=b', payload = 0xFF00")
        .await;
    let before = desk.parked().await;
    let of_5: Vec<Row> = before
        .iter()
        .filter(|row| row.msg_key == "5")
        .cloned()
        .collect();

    let report = desk.act(0, &["redrive", "--order", "5"]).json();
    assert_eq!(
        report,
        json!({"action": "redrive", "redriven_rows": 2, "redriven_orders": 1, "complete": true})
    );
    assert_eq!(desk.waiting().await, of_5, "the same rows, ids included");
    assert_eq!(desk.parked().await.len(), 1, "order 6 was not asked for");
    let generations = desk.generations().await;
    assert_eq!(generations.iter().sum::<i64>(), 1, "{generations:?}");
    assert_eq!(desk.generation(5).await, 1);

    let actions = desk.actions().await;
    assert_eq!(actions.len(), 2, "one for each event");
    let action = &actions[0];
    assert_eq!(
        (
            action.actor_type.as_str(),
            action.actor_id.as_str(),
            action.verb.as_str()
        ),
        ("operator", "j.doe", "outbox.redrive")
    );
    assert_eq!(action.reason, "INC-7: größer");
    assert_eq!(
        (action.event_id, action.return_id),
        (Some(culprit), Some(50))
    );
}

#[tokio::test]
async fn redrive_twice_is_harmless() {
    let desk = Desk::set().await;
    desk.park(5, 3, 1, REFUSED).await;
    desk.act(0, &["redrive", "--order", "5"]);
    let once = desk.waiting().await;
    // An order that has nothing parked is a surprise when it was named; that nothing at all is parked is not.
    for (code, args) in [
        (1, &["redrive", "--order", "5"][..]),
        (0, &["redrive", "--shard", "0"]),
        (0, &["redrive", "--all"]),
    ] {
        let report = desk.act(code, args).json();
        assert_eq!(
            (&report["redriven_rows"], &report["complete"]),
            (&0.into(), &true.into())
        );
    }
    assert_eq!(desk.waiting().await, once);
    assert_eq!(desk.actions().await.len(), 1);
    assert_eq!(desk.generation(5).await, 1, "nothing for the relay to do");
}

#[tokio::test]
async fn p4_what_a_relay_parks_at_that_moment_is_put_back_with_the_rest() {
    let desk = Desk::set().await;
    desk.park(5, 3, 1, REFUSED).await;
    let follower = desk.wait_in_outbox(5, 8, 2).await;
    // The relay has locked its lease row, and is about to park a follower.
    let mut relay = desk.db.pool.begin().await.expect("begin");
    sqlx::query("SELECT 1 FROM outbox_lease WHERE shard = ? FOR UPDATE")
        .bind(Shard::of(OrderId(5)))
        .execute(&mut *relay)
        .await
        .expect("lock");
    let args = [
        "outbox", "redrive", "--order", "5", "--by", "j.doe", "--reason", "x",
    ];
    let redrive = spawn(&desk, &args);
    somebody_waits_for_a_lock(&desk).await;
    park(&mut relay, follower, FOLLOWS).await;
    relay.commit().await.expect("commit");
    let ran = ended(redrive);
    assert_eq!(ran.code, 0, "{ran:?}");
    let seqs: Vec<i32> = desk.waiting().await.iter().map(|row| row.seq).collect();
    assert_eq!(
        seqs,
        [1, 2],
        "not the first alone: its follower would be stuck"
    );
    assert!(desk.parked().await.is_empty());
    assert_eq!(desk.actions().await.len(), 2);
}

#[tokio::test]
async fn p4_a_relay_that_decided_before_a_redrive_may_not_park_after_it() {
    let desk = Desk::set().await;
    desk.run(
        "UPDATE outbox_lease SET owner = 'relay-a', epoch = 1, lease_until = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR",
    )
    .await;
    let culprit = desk.park(5, 3, 1, REFUSED).await;
    // As the relay asks, with what it read at its last renewal.
    let may_park = || async {
        sqlx::query(
            "SELECT 1 FROM outbox_lease WHERE shard = ? AND owner = 'relay-a' AND epoch = 1 AND redrive_gen = 0 \
             AND lease_until >= UTC_TIMESTAMP(6) FOR UPDATE",
        )
        .bind(Shard::of(OrderId(5)))
        .fetch_optional(&desk.db.pool)
        .await
        .expect("the relay's question")
        .is_some()
    };
    assert!(may_park().await);
    desk.act(0, &["discard", "--event", &culprit.to_string()]);
    assert!(
        !may_park().await,
        "it would park new events of the order behind nothing"
    );
    desk.run("UPDATE outbox_lease SET redrive_gen = 0").await;
    desk.park(5, 8, 2, REFUSED).await;
    desk.act(0, &["redrive", "--all"]);
    assert!(!may_park().await);
}

#[tokio::test]
async fn p3_many_orders_are_put_back_whole_in_several_transactions() {
    let desk = Desk::set().await;
    for order in 0..20 {
        for seq in 1..=40 {
            desk.wait_in_outbox(order, order * 100 + i64::from(seq), seq)
                .await;
        }
    }
    desk.run(
        "INSERT INTO outbox_parked SELECT *, 'x', seq = 1, UTC_TIMESTAMP(6) FROM outbox WHERE seq > 20",
    )
    .await;
    desk.run("DELETE FROM outbox WHERE seq > 20").await;
    // One of them alone is more than a transaction's share.
    desk.run("UPDATE outbox_parked SET msg_key = '3' WHERE shard = CRC32('3') & 15")
        .await;
    let both = [desk.waiting().await, desk.parked().await].concat();
    let shards: std::collections::BTreeSet<Shard> =
        desk.parked().await.iter().map(|row| row.shard).collect();

    let report = desk.act(0, &["redrive", "--all"]).json();
    assert_eq!(report["redriven_rows"], 400);
    assert!(desk.parked().await.is_empty());
    let mut expected = both;
    expected.sort_by_key(|row| (row.shard, row.id));
    assert_eq!(desk.waiting().await, expected);
    assert_eq!(desk.actions().await.len(), 400);
    let raised = desk.generations().await.iter().filter(|n| **n > 0).count();
    assert_eq!(raised, shards.len());
}

#[tokio::test]
async fn p3_a_row_that_is_parked_and_waiting_rolls_its_transaction_back() {
    let desk = Desk::set().await;
    // Shards are worked on in ascending order.
    let (mut low, mut high) = (5, 6);
    if Shard::of(OrderId(low)) > Shard::of(OrderId(high)) {
        (low, high) = (high, low);
    }
    desk.park(low, 1, 1, REFUSED).await;
    desk.park(high, 2, 1, REFUSED).await;
    desk.park(high, 3, 2, FOLLOWS).await;
    desk.wait_in_outbox(high, 3, 2).await;
    let before = desk.parked().await;

    let ran = desk.act(1, &["redrive", "--all"]);
    assert!(
        ran.stderr.contains("is parked and waits in the outbox too"),
        "{}",
        ran.stderr
    );
    let report = ran.json();
    assert_eq!(
        (&report["redriven_rows"], &report["complete"]),
        (&1.into(), &false.into())
    );
    let left: Vec<Row> = desk.parked().await;
    assert_eq!(left, before[1..], "neither of the other two");
    assert_eq!(desk.waiting().await.len(), 2);
    assert_eq!(desk.generation(high).await, 0);
    assert_eq!(
        desk.actions().await.len(),
        1,
        "only what was done is recorded"
    );
}

#[tokio::test]
async fn p3_discard_wants_a_name_and_a_reason() {
    let desk = Desk::set().await;
    let event = desk.park(5, 3, 1, REFUSED).await.to_string();
    let discard = ["discard", "--event", &event];
    for (more, told) in [
        (&["--by", "j.doe"][..], "--reason"),
        (
            &["--by", "j.doe", "--reason", " \t "],
            "must be 1 to 2000 characters",
        ),
        (&["--reason", "x"], "--by"),
        (&["--by", " ", "--reason", "x"], "printable ASCII"),
    ] {
        let ran = desk.outbox(64, &[&discard[..], more].concat());
        assert!(ran.stderr.contains(told), "{told}: {}", ran.stderr);
    }
    assert_eq!(desk.parked().await.len(), 1);
    assert!(desk.actions().await.is_empty());
}

#[tokio::test]
async fn p3_a_discarded_row_can_still_be_told_from_the_records() {
    let desk = Desk::set().await;
    let culprit = desk.park(5, 3, 1, REFUSED).await;
    desk.park(5, 8, 2, FOLLOWS).await;
    let event = culprit.to_string();
    let report = desk.act(0, &["discard", "--event", &event]).json();
    assert_eq!(
        report,
        json!({
            "action": "discard", "discarded_rows": 1, "event_id": event, "shard": Shard::of(OrderId(5)), "id": 3,
            "order": "5", "still_parked": 1
        })
    );
    let seqs: Vec<i32> = desk.parked().await.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, [2]);
    assert!(desk.waiting().await.is_empty());
    assert_eq!(desk.generation(5).await, 1);

    let actions = desk.actions().await;
    let [action] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    assert_eq!(
        (action.verb.as_str(), action.actor_id.as_str()),
        ("outbox.discard", "j.doe")
    );
    assert_eq!(
        (action.event_id, action.return_id),
        (Some(culprit), Some(50))
    );
    assert_eq!(action.shard, Some(Shard::of(OrderId(5)).0));
    assert!(
        action
            .db_account
            .as_ref()
            .is_some_and(|account| account.contains('@'))
    );
    let details: Value = serde_json::from_str(&action.details).expect("JSON");
    for (name, value) in [
        ("id", json!(3)),
        ("order", json!("5")),
        ("seq", json!(1)),
        ("event_type", json!("return.tested")),
        ("topic", json!("some.topic")),
        ("first_error", json!(REFUSED)),
        ("payload_bytes", json!(10)),
    ] {
        assert_eq!(details[name], value, "{name}");
    }

    let again = desk.act(1, &["discard", "--event", &event]);
    assert!(again.stderr.contains("is not parked"), "{}", again.stderr);
    assert_eq!(desk.actions().await.len(), 1);
}

#[tokio::test]
async fn a_waiting_event_is_not_discarded() {
    let desk = Desk::set().await;
    let event = desk.wait_in_outbox(5, 3, 1).await.to_string();
    desk.act(1, &["discard", "--event", &event]);
    assert_eq!(desk.waiting().await.len(), 1);
}

#[tokio::test]
async fn records_of_operator_actions_are_for_ever() {
    let desk = Desk::set().await;
    desk.act(0, &["pause", "--shard", "3"]);
    for forbidden in [
        "UPDATE operator_actions SET reason = ''",
        "DELETE FROM operator_actions",
    ] {
        let error = desk
            .db
            .pool
            .execute(forbidden)
            .await
            .expect_err("forbidden");
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

#[tokio::test]
async fn a_shard_is_paused_and_resumed_by_a_named_person() {
    let desk = Desk::set().await;
    desk.run("UPDATE outbox_lease SET owner = 'relay-a', lease_until = UTC_TIMESTAMP(6) + INTERVAL 9 SECOND").await;
    let expected = |action, changed| json!({"action": action, "shard": 3, "changed": changed, "owner": "relay-a"});
    assert_eq!(
        desk.act(0, &["pause", "--shard", "3"]).json(),
        expected("pause", true)
    );
    assert_eq!(
        desk.act(0, &["pause", "--shard", "3"]).json(),
        expected("pause", false)
    );
    let paused = || async {
        let stats = desk.read(&["stats"]);
        let shards = stats["shards"].as_array().expect("a list").clone();
        let is_paused = |shard: &&Value| shard["paused_secs"].is_f64();
        shards
            .iter()
            .filter(is_paused)
            .map(|shard| shard["shard"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(paused().await, [3]);
    assert_eq!(
        desk.act(0, &["resume", "--shard", "3"]).json(),
        expected("resume", true)
    );
    assert_eq!(
        desk.act(0, &["resume", "--shard", "3"]).json(),
        expected("resume", false)
    );
    assert!(paused().await.is_empty());
    let verbs: Vec<(String, Option<u8>)> = desk
        .actions()
        .await
        .into_iter()
        .map(|action| (action.verb, action.shard))
        .collect();
    assert_eq!(
        verbs,
        [
            ("outbox.pause".to_owned(), Some(3)),
            ("outbox.resume".to_owned(), Some(3))
        ]
    );
}

#[tokio::test]
async fn stats_tell_rows_ages_and_leases_of_every_shard() {
    let desk = Desk::set().await;
    desk.wait_in_outbox(5, 3, 1).await;
    desk.wait_in_outbox(5, 4, 2).await;
    desk.park(6, 5, 1, REFUSED).await;
    desk.run(
        "UPDATE outbox_lease SET owner = 'relay-a', epoch = 7, lease_until = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR \
         WHERE shard = CRC32('5') & 15",
    )
    .await;
    desk.run(
        "UPDATE outbox_lease SET owner = 'relay-b', lease_until = UTC_TIMESTAMP(6) - INTERVAL 60 SECOND \
         WHERE shard = CRC32('6') & 15",
    )
    .await;
    let stats = desk.read(&["stats"]);
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
    let told = desk.outbox(0, &["stats"]).stdout;
    for part in [
        "relay-a",
        "min left",
        "expired ",
        "free",
        "returnsctl outbox parked",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[tokio::test]
async fn peek_shows_waiting_and_parked_rows_in_the_order_of_their_ids() {
    let desk = Desk::set().await;
    let parked = desk.park(5, 3, 1, REFUSED).await;
    desk.park(5, 9, 3, FOLLOWS).await;
    desk.wait_in_outbox(5, 4, 2).await;
    desk.wait_in_outbox(6, 5, 1).await;
    let shard = Shard::of(OrderId(5)).to_string();
    for args in [&["peek", "--order", "5"][..], &["peek", "--shard", &shard]] {
        let rows = desk.read(args);
        let seen: Vec<(&Value, &Value)> = rows["rows"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|row| (&row["id"], &row["state"]))
            .collect();
        let [p, w] = [json!("parked"), json!("waiting")];
        assert_eq!(seen, [(&3.into(), &p), (&4.into(), &w), (&9.into(), &p)]);
    }
    let rows = desk.read(&["peek", "--order", "5", "--limit", "1"]);
    assert_eq!(rows["rows"].as_array().map(Vec::len), Some(1));

    let row = &desk.read(&["peek", "--event", &parked.to_string()])["rows"][0];
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
    let told = desk
        .outbox(0, &["peek", "--event", &parked.to_string()])
        .stdout;
    assert!(told.contains(r#"payload (10 bytes): {"a":"ö"}"#), "{told}");

    desk.outbox(1, &["peek", "--event", &Uuid::now_v7().to_string()]);
    desk.outbox(64, &["peek"]);
    desk.outbox(64, &["peek", "--order", "5", "--shard", "1"]);
    desk.outbox(64, &["peek", "--shard", "16"]);
}

#[tokio::test]
async fn parked_tells_the_culprit_and_how_many_wait_behind_it() {
    let desk = Desk::set().await;
    assert_eq!(desk.read(&["parked"])["orders"], json!([]));
    // A follower with a lower id than the culprit: another return of the order came back from a redrive.
    desk.park(5, 2, 1, FOLLOWS).await;
    let culprit = desk.park(5, 3, 2, REFUSED).await;
    desk.park(5, 9, 3, FOLLOWS).await;
    desk.park(6, 5, 1, REFUSED).await;
    let report = desk.read(&["parked"]);
    assert_eq!(
        (&report["parked_rows"], &report["parked_orders"]),
        (&4.into(), &2.into())
    );
    let report = desk.read(&["parked", "--order", "5"]);
    assert_eq!(report["orders"].as_array().map(Vec::len), Some(1));
    let order = &report["orders"][0];
    assert_eq!(
        (&order["parked_rows"], &order["followers"]),
        (&3.into(), &2.into())
    );
    assert_eq!(order["culprit"]["event_id"], culprit.to_string());
    assert_eq!(order["culprit"]["first_error"], REFUSED);
    let told = desk.outbox(0, &["parked"]).stdout;
    assert!(
        told.contains(REFUSED) && told.contains("4 rows of 2 orders"),
        "{told}"
    );

    desk.act(0, &["discard", "--event", &culprit.to_string()]);
    let order = &desk.read(&["parked", "--order", "5"])["orders"][0];
    assert_eq!(
        (&order["culprit"], &order["followers"]),
        (&Value::Null, &2.into())
    );
}

#[tokio::test]
async fn without_schema_or_server_nothing_can_be_told() {
    let empty = TestDb::create_empty().await;
    let ran = expect_code(1, &["outbox", "stats"], &[("DATABASE_URL", empty.url())]);
    assert!(ran.stderr.contains("returnsctl migrate"), "{}", ran.stderr);
    let away = [("DATABASE_URL", "mysql://u:s3cret@127.0.0.1:1/d")];
    let ran = expect_code(
        2,
        &["outbox", "redrive", "--all", "--by", "a", "--reason", "b"],
        &away,
    );
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
}

#[test]
fn each_command_explains_itself() {
    for command in [
        "stats", "peek", "parked", "redrive", "discard", "pause", "resume",
    ] {
        let ran = expect_code(0, &["outbox", command, "--help"], &[]);
        assert!(ran.stdout.contains("--json"), "{command}: {}", ran.stdout);
        let listed = expect_code(0, &["outbox", "--help"], &[]).stdout;
        assert!(listed.contains(command), "{listed}");
    }
    let discard = expect_code(0, &["outbox", "discard", "--help"], &[]).stdout;
    assert!(discard.contains("gap"), "{discard}");
}
