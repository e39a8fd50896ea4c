//! `outbox`: what waits and what is parked, put back or discarded by a named person, and shards held back.
//!
//! The relay's half of each is tested beside the relay.

mod discard;
mod reads;
mod redrive;
mod topics;

use std::process::{Child, Stdio};

use serde_json::{Value, json};
use shared::domain::ids::{OrderId, Shard};
use shared::test_support::TestDb;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor, FromRow};
use uuid::Uuid;

use crate::harness::{self, Ran, expect_code, returnsctl};

const REFUSED: &str = "larger than the topic's max.message.bytes of 1000";
const FOLLOWS: &str = "follows a parked record of the same order";

/// A database with an outbox to operate.
struct Fixture {
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

impl Fixture {
    async fn new() -> Self {
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
        self.rows("outbox").await
    }

    async fn parked(&self) -> Vec<Row> {
        self.rows("outbox_parked").await
    }

    async fn rows(&self, table: &str) -> Vec<Row> {
        let sql = format!(
            "SELECT shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, traceparent, tracestate, \
             created_at FROM {table} ORDER BY shard, id"
        );
        sqlx::query_as(AssertSqlSafe(sql))
            .fetch_all(&self.db.pool)
            .await
            .expect("rows")
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

async fn await_lock_waiter(fixture: &Fixture) {
    harness::await_lock_waiter(&fixture.db).await;
}

fn spawn(fixture: &Fixture, args: &[&str]) -> Child {
    returnsctl(args, &[("DATABASE_URL", fixture.db.url())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built program runs")
}

fn ended(child: Child) -> Ran {
    child.wait_with_output().expect("it ends").into()
}

#[tokio::test]
async fn a_shard_is_paused_and_resumed_by_a_named_person() {
    let fixture = Fixture::new().await;
    fixture.run("UPDATE outbox_lease SET owner = 'relay-a', lease_until = UTC_TIMESTAMP(6) + INTERVAL 9 SECOND").await;
    let expected = |action, changed| json!({"action": action, "shard": 3, "changed": changed, "owner": "relay-a"});
    assert_eq!(
        fixture.act(0, &["pause", "--shard", "3"]).json(),
        expected("pause", true)
    );
    assert_eq!(
        fixture.act(0, &["pause", "--shard", "3"]).json(),
        expected("pause", false)
    );
    let paused = || async {
        let stats = fixture.read(&["stats"]);
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
        fixture.act(0, &["resume", "--shard", "3"]).json(),
        expected("resume", true)
    );
    assert_eq!(
        fixture.act(0, &["resume", "--shard", "3"]).json(),
        expected("resume", false)
    );
    assert!(paused().await.is_empty());
    let verbs: Vec<(String, Option<u8>)> = fixture
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
async fn a_missing_schema_ends_with_1_and_a_missing_server_with_2() {
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
