//! Whether relays and consumers are at work, what waits for a person, and whether the audit trail is there.

use std::time::Duration;

use shared::domain::ids::CustomerId;
use shared::test_support::until;
use sqlx::Executor;

use super::{Fixture, not_ok, pair};
use crate::harness::{expect_code, run};

#[tokio::test]
async fn refunds_and_records_that_wait_for_a_person_are_counted() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    fixture.db.seed_orders(1, 3, CustomerId(42)).await;
    for sql in [
        "INSERT INTO returns (id, order_id, customer_id, reason, status, version, policy_version, refund_amount, \
         currency, created_at, updated_at) SELECT id, id, 42, 'x', IF(id = 1, 'refund_failed', 'refund_pending'), 1, \
         'x', 1, 'EUR', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM orders",
        "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, created_at, \
         updated_at) SELECT id, 1, id, 1, 'EUR', ELT(id, 'declined', 'parked', 'unknown'), \
         UTC_TIMESTAMP(6) - INTERVAL 200 SECOND, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM returns",
        EVENTS,
        "INSERT INTO dead_letters (topic, partition_id, offset_id, record_time, headers, reason, received_at) \
         VALUES ('t', 0, 0, 0, '[]', 'empty', UTC_TIMESTAMP(6)), ('t', 0, 1, 0, '[]', 'empty', UTC_TIMESTAMP(6))",
    ] {
        fixture.db.pool.execute(sql).await.expect(sql);
    }
    let person = [
        pair("parked refunds", "person"),
        pair("failed refunds", "person"),
        pair("dead letters", "person"),
    ];
    let ran = fixture.doctor();
    assert_eq!(ran.code, 3, "work for a person is no fault: {ran:?}");
    let found = not_ok(&ran);
    assert!(person.iter().all(|one| found.contains(one)), "{found:?}");
    assert!(ran.stdout.contains("2 records"), "{}", ran.stdout);
    assert_eq!(ran.json()["ok"], true);
    assert_eq!(ran.json()["waiting_for_a_person"], 4);
    let overdue = "UPDATE refunds SET next_check_at = UTC_TIMESTAMP(6) - INTERVAL 310 SECOND";
    fixture.db.pool.execute(overdue).await.expect("update");
    let ran = fixture.doctor();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(not_ok(&ran).contains(&pair("overdue refunds", "fail")));
    assert!(
        ran.stdout.contains("1 attempt due for more than 5 min"),
        "{}",
        ran.stdout
    );
}

/// No consumer has the account's `GATEWAY_NAME` any more: nobody would learn that it takes a payment back.
#[tokio::test]
async fn payments_that_nobody_looks_up_again_are_named_by_account() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    fixture.db.seed_orders(1, 6, CustomerId(42)).await;
    for sql in [
        "INSERT INTO returns (id, order_id, customer_id, reason, status, version, policy_version, refund_amount, \
         currency, created_at, updated_at) SELECT id, id, 42, 'x', 'refunded', 1, 'x', 1, 'EUR', UTC_TIMESTAMP(6), \
         UTC_TIMESTAMP(6) FROM orders",
        "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, gateway, gateway_ref, \
         next_check_at, recheck_at, created_at, updated_at) SELECT id, 1, id, 1, 'EUR', 'succeeded', \
         IF(id = 6, 'sandbox', 'acme'), 'r', UTC_TIMESTAMP(6), \
         UTC_TIMESTAMP(6) - INTERVAL ELT(id, -1, 50, 61, 72 * 60, 31 * 24 * 60, 90) MINUTE, UTC_TIMESTAMP(6), \
         UTC_TIMESTAMP(6) FROM returns",
        EVENTS,
    ] {
        fixture.db.pool.execute(sql).await.expect(sql);
    }
    let ran = fixture.doctor();
    let name = "re-checks of paid refunds";
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(not_ok(&ran).contains(&pair(name, "warn")), "{ran:?}");
    // Also the one whose last look-up was due a month ago: nobody has made it.
    let found =
        "acme: 3 attempts, the oldest due for 31 d; sandbox: 1 attempt, the oldest due for 90 min";
    assert!(ran.stdout.contains(found), "{}", ran.stdout);
}

/// An earlier version also added its refunds to the shop's column, so they count twice until the shop writes the row.
#[tokio::test]
async fn orders_of_which_more_than_the_total_counts_as_refunded_are_named() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    fixture.db.seed_orders(1, 4, CustomerId(42)).await;
    for sql in [
        "INSERT INTO returns (id, order_id, customer_id, reason, status, version, policy_version, refund_amount, \
         currency, created_at, updated_at) SELECT id, id, 42, 'x', IF(id = 4, 'rejected', 'refunded'), 1, 'x', 49.90, \
         'EUR', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM orders",
        "UPDATE orders SET refunded_amount = 49.90 WHERE id IN (2, 4)",
        EVENTS,
    ] {
        fixture.db.pool.execute(sql).await.expect(sql);
    }
    let ran = fixture.doctor();
    assert_eq!(ran.code, 0, "{ran:?}");
    let counted_twice = pair("refunds of orders", "warn");
    assert!(not_ok(&ran).contains(&counted_twice), "{ran:?}");
    assert!(ran.stdout.contains("1 order"), "{}", ran.stdout);
    assert!(ran.stdout.contains("order 2:"), "{}", ran.stdout);
    fixture
        .execute("UPDATE orders SET refunded_amount = 0")
        .await;
    let ran = fixture.doctor();
    assert!(!not_ok(&ran).contains(&counted_twice), "{ran:?}");
}

#[tokio::test]
async fn payments_that_the_provider_no_longer_confirms_are_counted() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    fixture.db.seed_orders(1, 3, CustomerId(42)).await;
    for sql in [
        "INSERT INTO returns (id, order_id, customer_id, reason, status, version, policy_version, refund_amount, \
         currency, created_at, updated_at) SELECT id, id, 42, 'x', 'refunded', IF(id > 1, 2, 1), 'x', 1, 'EUR', \
         UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM orders",
        "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, last_error, next_check_at, \
         created_at, updated_at) SELECT id, 1, id, 1, 'EUR', 'succeeded', IF(id < 3, 'not_found', NULL), \
         UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM returns",
        EVENTS,
        "INSERT INTO return_events (return_id, seq, event_id, event_type, event_data, actor_type, actor_id, created_at, \
         prev_hash, hash) SELECT id, 2, UUID_TO_BIN(UUID()), 'refund.answer_disagreed', '{}', 'system', \
         'refund-consumer', created_at, '', '' FROM returns WHERE id > 1",
    ] {
        fixture.db.pool.execute(sql).await.expect(sql);
    }
    let ran = fixture.doctor();
    assert_eq!(ran.code, 0, "{ran:?}");
    let doubtful = pair("doubtful refunds", "warn");
    assert!(not_ok(&ran).contains(&doubtful), "{ran:?}");
    assert!(ran.stdout.contains("1 attempt"), "{}", ran.stdout);
}

#[tokio::test]
async fn returns_that_no_consumer_claims_are_a_problem() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    fixture.db.seed_orders(1, 4, CustomerId(42)).await;
    // Approved, initiated, waiting for a person's review, and young.
    let sql = "INSERT INTO returns (id, order_id, customer_id, reason, status, version, review_required, policy_version, \
               refund_amount, currency, created_at, updated_at) SELECT id, id, 42, 'x', \
               IF(id = 1, 'approved', 'initiated'), 1, id = 3, 'x', 1, 'EUR', UTC_TIMESTAMP(6), \
               UTC_TIMESTAMP(6) - INTERVAL IF(id = 4, 200, 310) SECOND FROM orders";
    fixture.execute(sql).await;
    fixture.execute(EVENTS).await;
    let ran = fixture.doctor();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(not_ok(&ran).contains(&pair("unclaimed returns", "fail")));
    for part in [
        "2 returns due for more than 5 min",
        "no refund consumer is at work",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let claimed = "UPDATE returns SET updated_at = UTC_TIMESTAMP(6) WHERE id < 3";
    fixture.execute(claimed).await;
    let ran = fixture.doctor();
    assert_eq!(ran.code, 3, "the review is left: {ran:?}");
}

/// Fills `returns` and `return_events` for the orders that are there.
async fn file_all(fixture: &Fixture) {
    for sql in [
        "INSERT INTO returns (id, order_id, customer_id, reason, status, version, policy_version, refund_amount, currency, \
         created_at, updated_at) SELECT id, id, 42, 'x', 'refunded', 1, 'x', 1, 'EUR', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) \
         FROM orders",
        EVENTS,
    ] {
        fixture.execute(sql).await;
    }
}

/// One event for each return.
const EVENTS: &str = "INSERT INTO return_events (return_id, seq, event_id, event_type, event_data, actor_type, actor_id, \
                      created_at, prev_hash, hash) SELECT id, 1, UUID_TO_BIN(UUID()), 'return.initiated', '{}', 'customer', \
                      '42', created_at, '', '' FROM returns";

const OUTBOX: &str =
    "(shard, event_id, aggregate_id, seq, event_type, topic, msg_key, payload, created_at";

#[tokio::test]
async fn a_dead_relay_is_a_problem() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    let lease = |owner: &str, until: &str| {
        format!("UPDATE outbox_lease SET owner = {owner}, lease_until = UTC_TIMESTAMP(6) {until}")
    };
    fixture
        .execute(&lease("'relay-1'", "+ INTERVAL 1 HOUR"))
        .await;
    let ran = fixture.doctor();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout.contains("1 relay, 16 of 16 shards"),
        "{}",
        ran.stdout
    );
    let dead = format!(
        "{} WHERE shard = 5",
        lease("'relay-2'", "- INTERVAL 1 MINUTE")
    );
    fixture.execute(&dead).await;
    let ran = fixture.doctor();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(not_ok(&ran).contains(&pair("relays", "fail")), "{ran:?}");
    assert!(ran.stdout.contains("shard 5"), "{}", ran.stdout);
}

#[tokio::test]
async fn an_event_that_waits_for_long_is_a_problem() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    let old = format!(
        "INSERT INTO outbox {OUTBOX}) VALUES (3, UUID_TO_BIN(UUID()), 1, 1, 'x', 'x', '1', 'x', \
         UTC_TIMESTAMP(6) - INTERVAL 2 MINUTE)"
    );
    fixture.execute(&old).await;
    let ran = fixture.doctor();
    assert_eq!(ran.code, 1, "{ran:?}");
    let found = not_ok(&ran);
    for name in ["relays", "waiting events"] {
        assert!(found.contains(&pair(name, "fail")), "{name}: {found:?}");
    }
    assert!(ran.stdout.contains("late: shard 3"), "{}", ran.stdout);
    // A person has stopped the shard, and it waits for that person.
    fixture
        .execute("UPDATE outbox_lease SET paused_at = UTC_TIMESTAMP(6) WHERE shard = 3")
        .await;
    let ran = fixture.doctor();
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(not_ok(&ran).contains(&pair("paused shards", "person")));
}

#[tokio::test]
async fn what_waits_for_a_person_ends_with_3_and_with_1_if_strict() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    fixture.db.seed_orders(1, 2, CustomerId(42)).await;
    file_all(&fixture).await;
    for sql in [
        &format!(
            "INSERT INTO outbox_parked {OUTBOX}, id, first_error, attempts, parked_at) SELECT 3, UUID_TO_BIN(UUID()), 1, id, \
             'x', 'x', '1', 'x', UTC_TIMESTAMP(6), id, 'x', 1, UTC_TIMESTAMP(6) FROM orders"
        ),
        "UPDATE returns SET status = 'initiated', review_required = 1 WHERE id = 2",
        "UPDATE returns SET status = 'refund_pending' WHERE id = 1",
        "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, created_at, \
         updated_at) VALUES (1, 1, 'k', 1, 'EUR', 'parked', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
        "INSERT INTO operator_actions (actor_type, actor_id, verb, reason, created_at, return_id, db_account, details) \
         VALUES ('admin', '7', 'refund.request_mark_paid', 'x', UTC_TIMESTAMP(6), 1, 'x', '{}')",
    ] {
        fixture.execute(sql).await;
    }
    let ran = fixture.doctor();
    assert_eq!(ran.code, 3, "{ran:?}");
    let found = not_ok(&ran);
    for name in [
        "parked events",
        "parked refunds",
        "requests to mark refunds",
        "reviews",
    ] {
        assert!(found.contains(&pair(name, "person")), "{name}: {found:?}");
    }
    assert_eq!(ran.json()["waiting_for_a_person"], 3);
    assert_eq!(
        (&ran.json()["ok"], &ran.json()["exit_code"]),
        (&true.into(), &3.into())
    );
    let mut variables = fixture.topics.variables();
    variables.push(("DATABASE_URL", fixture.db.url()));
    let ran = run(&["doctor", "--strict"], &variables);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stdout.contains("3 things wait for a person"),
        "{}",
        ran.stdout
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_no_consumer_reads_are_a_problem() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    fixture.topics.send_one().await;
    let ran = fixture.doctor();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        not_ok(&ran).contains(&pair(&fixture.group(), "fail")),
        "{ran:?}"
    );
    assert!(
        ran.stdout.contains("0 members, 1 record not read"),
        "{}",
        ran.stdout
    );
    let member = fixture.topics.join_group();
    let ran = until("the member has joined", Duration::from_secs(40), || async {
        // A group changes only while its member polls.
        tokio::task::block_in_place(|| member.poll(Duration::from_secs(1)));
        let ran = fixture.doctor();
        (ran.code == 0).then_some(ran)
    })
    .await;
    assert!(ran.stdout.contains("1 member, "), "{}", ran.stdout);
}

/// The newest returns are checked one by one, also after a TRUNCATE, which fires no trigger.
#[tokio::test]
async fn p7_returns_without_their_events_are_named() {
    let fixture = Fixture::new().await;
    expect_code(0, &["topics"], &fixture.topics.variables());
    fixture.db.seed_orders(1, 30, CustomerId(42)).await;
    file_all(&fixture).await;
    assert_eq!(fixture.doctor().code, 0);
    fixture
        .execute("DROP TRIGGER return_events_no_delete")
        .await;
    fixture
        .execute("DELETE FROM return_events WHERE return_id = 7")
        .await;
    let ran = fixture.doctor();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        not_ok(&ran).contains(&pair("audit trail", "fail")),
        "{ran:?}"
    );
    assert!(
        ran.stdout.contains("1 lack events; return 7 has 0 of 1"),
        "{}",
        ran.stdout
    );
    fixture.execute("TRUNCATE return_events").await;
    let ran = fixture.doctor();
    assert!(
        ran.stdout.contains("30 lack events; return 1 has 0 of 1"),
        "{}",
        ran.stdout
    );
}
