//! `status`: every queue, who works on it, and what waits for a person with the command to type next.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;
use shared::domain::ids::CustomerId;
use shared::test_support::{TestDb, until};
use sqlx::{AssertSqlSafe, Executor};

use crate::harness::{Ran, Topics, expect_code, run};

pub(crate) struct Fixture {
    db: TestDb,
    topics: Topics,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let fixture = Self {
            db: TestDb::create().await,
            topics: Topics::new(),
        };
        expect_code(0, &["topics"], &fixture.topics.variables());
        fixture
    }

    pub(crate) fn run(&self, args: &[&str], more: &[(&str, &str)]) -> Ran {
        let mut variables = self.topics.variables();
        variables.push(("DATABASE_URL", self.db.url()));
        variables.push(("CONSUMER_GROUP", &self.topics.returns));
        variables.extend(more);
        run(args, &variables)
    }

    fn status(&self, more: &[(&str, &str)]) -> Ran {
        self.run(&["status", "--json"], more)
    }

    async fn execute(&self, sql: &str) {
        let done = self.db.pool.execute(AssertSqlSafe(sql.to_owned())).await;
        done.expect(sql);
    }

    /// All shards belong to relays that are alive.
    pub(crate) async fn lease_shards(&self) {
        self.execute(
            "UPDATE outbox_lease SET owner = IF(shard < 8, 'relay-a', 'relay-b'), epoch = 1, \
             lease_until = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR",
        )
        .await;
        self.execute(
            "INSERT INTO outbox_relay (id, seen_at) VALUES ('relay-a', UTC_TIMESTAMP(6)), ('relay-b', UTC_TIMESTAMP(6))",
        )
        .await;
    }
}

/// `kind`, `urgency`, `count` and `command` of what waits.
fn waiting(ran: &Ran) -> Vec<(String, String, i64, String)> {
    let json = ran.json();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let all = json["waiting"].as_array().expect("a list").iter();
    all.map(|one| {
        let count = one["count"].as_i64().expect("a number");
        (
            text(&one["kind"]),
            text(&one["urgency"]),
            count,
            text(&one["command"]),
        )
    })
    .collect()
}

#[tokio::test]
async fn a_quiet_system_ends_with_0() {
    let fixture = Fixture::new().await;
    fixture.lease_shards().await;
    let ran = fixture.status(&[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(waiting(&ran), []);
    let json = ran.json();
    assert_eq!(json["exit_code"], 0);
    assert_eq!(json["alerts"], Value::Null);
    let outbox = &json["outbox"]["value"];
    assert_eq!(outbox["shards"].as_array().map(Vec::len), Some(16));
    assert_eq!(outbox["shards"][9]["owner"], "relay-b");
    let text = fixture.run(&["status"], &[]).stdout;
    for part in [
        "relay     relay-a: shards 0-7, lease ",
        "initiated 0, in_review 0, approved 0",
        "set --prometheus-url (PROMETHEUS_URL)",
        "Nothing stands still, and nothing waits for a person.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

const RETURNS: &str = "INSERT INTO returns (id, order_id, customer_id, reason, status, version, review_required, \
                       policy_version, refund_amount, currency, created_at, updated_at) SELECT id, id, 42, 'x', \
                       ELT(id, 'refund_failed', 'refund_pending', 'refund_pending', 'initiated', 'initiated', \
                       'refunded'), 1, id = 4, 'x', 1, 'EUR', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) - INTERVAL 10 MINUTE \
                       FROM orders";
const REFUNDS: &str = "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, last_error, \
                       next_check_at, created_at, updated_at) SELECT id, 1, id, 1, 'EUR', \
                       ELT(id, 'declined', 'parked', 'unknown', '', '', 'succeeded'), IF(id = 6, 'not_found', NULL), \
                       UTC_TIMESTAMP(6) - INTERVAL 10 MINUTE, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM returns \
                       WHERE id NOT IN (4, 5)";
const DOUBT: &str = "INSERT INTO return_events (return_id, seq, event_id, event_type, event_data, actor_type, actor_id, \
                     created_at, prev_hash, hash) SELECT id, 1, UUID_TO_BIN(UUID()), 'refund.answer_disagreed', '{}', \
                     'system', 'x', created_at, '', '' FROM returns WHERE id = 6";
const REQUEST: &str = "INSERT INTO operator_actions (actor_type, actor_id, verb, reason, created_at, return_id, \
                       db_account, details) VALUES ('admin', '7', 'refund.request_mark_paid', 'x', UTC_TIMESTAMP(6), \
                       2, 'x', '{}')";
const LETTER: &str = "INSERT INTO dead_letters (topic, partition_id, offset_id, record_time, headers, reason, \
                      received_at) VALUES ('t', 0, 0, 0, '[]', 'empty', UTC_TIMESTAMP(6) - INTERVAL 3 HOUR)";

/// An event of shard 3 in a topic that Kafka does not have, and a parked one of shard 4; shard 5 is paused.
async fn fill_outbox(fixture: &Fixture) {
    let columns =
        "shard, id, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, created_at";
    for sql in [
        format!(
            "INSERT INTO outbox ({columns}) VALUES (3, 1, UUID_TO_BIN(UUID()), 1, 1, 'x', 'no.such.topic', '1', 'x', \
             UTC_TIMESTAMP(6) - INTERVAL 2 MINUTE)"
        ),
        format!(
            "INSERT INTO outbox_parked ({columns}, first_error, attempts, parked_at) VALUES (4, 2, UUID_TO_BIN(UUID()), \
             2, 1, 'x', 'x', '2', 'x', UTC_TIMESTAMP(6), 'x', 1, UTC_TIMESTAMP(6))"
        ),
        "UPDATE outbox_lease SET paused_at = UTC_TIMESTAMP(6) WHERE shard = 5".to_owned(),
        "UPDATE outbox_lease SET lease_until = UTC_TIMESTAMP(6) - INTERVAL 1 MINUTE WHERE shard = 6".to_owned(),
    ] {
        fixture.execute(&sql).await;
    }
}

#[tokio::test]
async fn everything_that_waits_is_shown_with_the_command_to_type_next() {
    let fixture = Fixture::new().await;
    fixture.lease_shards().await;
    fixture.db.seed_orders(1, 6, CustomerId(42)).await;
    for sql in [RETURNS, REFUNDS, DOUBT, REQUEST, LETTER] {
        fixture.execute(sql).await;
    }
    fill_outbox(&fixture).await;
    fixture.topics.send_one().await;
    let ran = fixture.status(&[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let expected = [
        ("unattended_shards", "stuck", 1, "outbox stats"),
        ("late_events", "stuck", 1, "outbox peek --shard 3"),
        ("troubled_topics", "stuck", 1, "outbox topics"),
        ("unread_records", "stuck", 1, "doctor"),
        ("unclaimed_returns", "stuck", 1, "returns list --stuck"),
        (
            "overdue_refunds",
            "stuck",
            1,
            "refunds list --state overdue",
        ),
        ("parked_events", "person", 1, "outbox parked"),
        ("parked_refunds", "person", 1, "refunds list --state parked"),
        ("mark_requests", "person", 1, "refunds list --state parked"),
        (
            "failed_refunds",
            "person",
            1,
            "refunds list --state refund_failed",
        ),
        ("reviews", "person", 1, "returns list --in-review"),
        ("dead_letters", "person", 1, "dead-letters list"),
        (
            "paused_shards",
            "person",
            1,
            "outbox resume --shard 5 --by NAME --reason TEXT",
        ),
        (
            "doubtful_refunds",
            "notice",
            1,
            "refunds list --state doubtful",
        ),
    ];
    let expected = expected.map(|(kind, urgency, count, command)| {
        let command = format!("returnsctl {command}");
        (kind.to_owned(), urgency.to_owned(), count, command)
    });
    assert_eq!(waiting(&ran), expected);
    let text = fixture.run(&["status"], &[]).stdout;
    for (.., command) in &expected {
        assert!(
            text.contains(&format!("-> {command}\n")),
            "{command}: {text}"
        );
    }
    assert!(
        text.contains("STUCK troubled topics: 1 (no.such.topic (topic_missing))"),
        "{text}"
    );
    assert!(
        text.contains("wait  dead letters: 1, the oldest for 3 h"),
        "{text}"
    );
    // What is printed is typed as it is: none may end in bad usage.
    for (.., command) in &expected {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        let typed = fixture.run(&words, &[]);
        assert!([0, 1, 3].contains(&typed.code), "{command}: {typed:?}");
    }
}

#[tokio::test]
async fn what_waits_for_a_person_alone_ends_with_3() {
    let fixture = Fixture::new().await;
    fixture.lease_shards().await;
    fixture.execute(LETTER).await;
    let ran = fixture.status(&[]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert_eq!(ran.json()["exit_code"], 3);
}

#[tokio::test]
async fn a_missing_topic_of_ours_is_stuck_and_the_command_creates_it() {
    let fixture = Fixture {
        db: TestDb::create().await,
        topics: Topics::new(),
    };
    let ran = fixture.status(&[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let found = waiting(&ran);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].2, found[0].3.as_str()), (2, "returnsctl topics"));
}

/// Well above the deadline of a part, well below that of any single request without one.
const ENDS_WITHIN: Duration = Duration::from_secs(8);

/// A port that takes connections and never answers.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    (listener, address)
}

#[tokio::test]
async fn what_is_away_or_silent_is_unknown_with_the_reason_and_hides_nothing_else() {
    let fixture = Fixture::new().await;
    fixture.lease_shards().await;
    let (_open, address) = silent();
    let url = |address: &str| format!("mysql://u:s3cret@{address}/d");
    for (name, value, parts, reason) in [
        (
            "DATABASE_URL",
            url("127.0.0.1:1"),
            &["outbox", "outbox_counts", "work"][..],
            "127.0.0.1:1",
        ),
        (
            "DATABASE_URL",
            url(&address),
            &["outbox", "outbox_counts", "work"],
            address.as_str(),
        ),
        (
            "KAFKA_BROKERS",
            "127.0.0.1:1".to_owned(),
            &["consumers"],
            "127.0.0.1:1",
        ),
        (
            "KAFKA_BROKERS",
            address.clone(),
            &["consumers"],
            address.as_str(),
        ),
        (
            "PROMETHEUS_URL",
            format!("http://{address}"),
            &["alerts"],
            "no answer within 4 s",
        ),
        (
            "PROMETHEUS_URL",
            "http://u:s3cret@127.0.0.1:1".to_owned(),
            &["alerts"],
            "cannot reach Prometheus",
        ),
    ] {
        let begun = Instant::now();
        let ran = fixture.status(&[(name, &value)]);
        assert!(
            begun.elapsed() < ENDS_WITHIN,
            "{name}={value}: {:?}",
            begun.elapsed()
        );
        assert_eq!(ran.code, 2, "{name}={value}: {ran:?}");
        assert!(!format!("{ran:?}").contains("s3cret"), "{ran:?}");
        let json = ran.json();
        for part in ["outbox", "outbox_counts", "work", "consumers", "alerts"] {
            let part_is_away = parts.contains(&part);
            let trouble = json[part]["trouble"].as_str();
            assert_eq!(
                trouble.is_some(),
                part_is_away,
                "{part} of {name}={value}: {json}"
            );
            if let Some(trouble) = trouble {
                assert!(trouble.contains(reason), "{reason}: {trouble}");
            }
        }
    }
}

#[tokio::test]
async fn an_operator_port_that_hangs_or_is_no_program_of_ours_is_unknown() {
    let fixture = Fixture::new().await;
    fixture.lease_shards().await;
    let (_open, hanging) = silent();
    let gone = {
        let (listener, address) = silent();
        drop(listener);
        address
    };
    let addresses = format!("{hanging},{gone}");
    let begun = Instant::now();
    let ran = fixture.run(&["status", "--ops", &addresses], &[]);
    assert!(begun.elapsed() < ENDS_WITHIN, "{:?}", begun.elapsed());
    assert_eq!(ran.code, 2, "{ran:?}");
    for part in [
        format!("program   {hanging}: UNKNOWN: no answer within 4 s"),
        format!("program   {gone}: UNKNOWN: cannot reach {gone}"),
        "outbox    0 rows waiting; 0 parked".to_owned(),
    ] {
        assert!(ran.stdout.contains(&part), "{part}: {}", ran.stdout);
    }
    let bad = fixture.run(&["status", "--ops", "nowhere"], &[]);
    assert_eq!(bad.code, 64, "{bad:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_are_named_with_their_partitions() {
    let fixture = Fixture::new().await;
    fixture.lease_shards().await;
    let member = fixture.topics.join_group();
    let ran = until("the member has joined", Duration::from_secs(40), || async {
        // A group changes only while its member polls.
        tokio::task::block_in_place(|| {
            rdkafka::consumer::BaseConsumer::poll(&member, Duration::from_millis(200))
        });
        let ran = fixture.run(&["status"], &[]);
        (ran.stdout.contains("partitions 0-11")).then_some(ran)
    })
    .await;
    assert!(ran.stdout.contains("1 member, "), "{}", ran.stdout);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_prometheus_url_without_a_scheme_is_refused_and_not_repeated() {
    let variables = [("PROMETHEUS_URL", "u:s3cret@localhost:9090")];
    for command in ["status", "top"] {
        let ran = expect_code(64, &[command], &variables);
        let problem = "PROMETHEUS_URL must be a URL that begins with http:// or https://";
        assert!(ran.stderr.contains(problem), "{ran:?}");
        assert!(!format!("{ran:?}").contains("s3cret"), "{ran:?}");
    }
}
