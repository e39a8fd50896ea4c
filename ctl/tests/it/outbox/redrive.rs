//! `outbox redrive`: all rows of an order return under their own ids, whatever a relay does meanwhile.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use shared::domain::ids::{OrderId, Shard};
use sqlx::Executor;

use super::{FOLLOWS, Fixture, REFUSED, Row, await_lock_waiter, ended, park, spawn};

const REDRIVE: [&str; 8] = [
    "outbox", "redrive", "--order", "5", "--by", "j.doe", "--reason", "x",
];

#[tokio::test]
async fn p3_redrive_puts_rows_back_unchanged_and_notifies_the_relay() {
    let fixture = Fixture::new().await;
    let culprit = fixture.park(5, 3, 1, REFUSED).await;
    fixture.park(5, 8, 2, FOLLOWS).await;
    fixture.park(6, 4, 1, REFUSED).await;
    fixture
        .run("UPDATE outbox_parked SET tracestate = 'a=b', payload = 0xFF00")
        .await;
    let before = fixture.parked().await;
    let of_5: Vec<Row> = before
        .iter()
        .filter(|row| row.msg_key == "5")
        .cloned()
        .collect();

    let report = fixture.act(0, &["redrive", "--order", "5"]).json();
    assert_eq!(
        report,
        json!({
            "action": "redrive", "dry_run": false, "redriven_rows": 2, "redriven_orders": 1, "complete": true
        })
    );
    assert_eq!(fixture.waiting().await, of_5, "the same rows, ids included");
    assert_eq!(fixture.parked().await.len(), 1, "order 6 was not asked for");
    let generations = fixture.generations().await;
    assert_eq!(generations.iter().sum::<i64>(), 1, "{generations:?}");
    assert_eq!(fixture.generation(5).await, 1);

    let actions = fixture.actions().await;
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
async fn a_dry_run_says_what_would_be_put_back_and_changes_nothing() {
    let fixture = Fixture::new().await;
    fixture.park(5, 3, 1, REFUSED).await;
    fixture.park(5, 8, 2, FOLLOWS).await;
    fixture.park(6, 4, 1, REFUSED).await;
    let before = fixture.parked().await;
    for (scope, rows, orders) in [
        (&["--all"][..], 3, 2),
        (&["--order", "5"], 2, 1),
        (&["--shard", &Shard::of(OrderId(6)).to_string()], 1, 1),
    ] {
        let report = fixture
            .act(0, &[&["redrive", "--dry-run"], scope].concat())
            .json();
        let expected = json!({
            "action": "redrive", "dry_run": true, "redriven_rows": rows, "redriven_orders": orders, "complete": false
        });
        assert_eq!(report, expected, "{scope:?}");
    }
    let args = [
        "redrive",
        "--all",
        "--dry-run",
        "--by",
        "j.doe",
        "--reason",
        "x",
    ];
    let text = fixture.outbox(0, &args).stdout;
    assert!(text.contains("Would put back 3 rows of 2 orders"), "{text}");
    assert_eq!(fixture.parked().await, before);
    assert_eq!(fixture.waiting().await, []);
    assert_eq!(fixture.actions().await.len(), 0);
    fixture.act(1, &["redrive", "--dry-run", "--order", "7"]);
}

#[tokio::test]
async fn a_second_redrive_changes_nothing() {
    let fixture = Fixture::new().await;
    fixture.park(5, 3, 1, REFUSED).await;
    fixture.act(0, &["redrive", "--order", "5"]);
    let once = fixture.waiting().await;
    // It is an error if a named order has no parked rows. It is no error if a shard or the whole outbox has none.
    for (code, args) in [
        (1, &["redrive", "--order", "5"][..]),
        (0, &["redrive", "--shard", "0"]),
        (0, &["redrive", "--all"]),
    ] {
        let report = fixture.act(code, args).json();
        assert_eq!(
            (&report["redriven_rows"], &report["complete"]),
            (&0.into(), &true.into())
        );
    }
    assert_eq!(fixture.waiting().await, once);
    assert_eq!(fixture.actions().await.len(), 1);
    assert_eq!(
        fixture.generation(5).await,
        1,
        "nothing for the relay to do"
    );
}

#[tokio::test]
async fn p4_a_row_that_a_relay_parks_meanwhile_is_put_back_with_the_others() {
    let fixture = Fixture::new().await;
    fixture.park(5, 3, 1, REFUSED).await;
    let follower = fixture.wait_in_outbox(5, 8, 2).await;
    // The relay has locked its lease row, and is about to park a follower.
    let mut relay = fixture.db.pool.begin().await.expect("begin");
    sqlx::query("SELECT 1 FROM outbox_lease WHERE shard = ? FOR UPDATE")
        .bind(Shard::of(OrderId(5)))
        .execute(&mut *relay)
        .await
        .expect("lock");
    let redrive = spawn(&fixture, &REDRIVE);
    await_lock_waiter(&fixture).await;
    park(&mut relay, follower, FOLLOWS).await;
    relay.commit().await.expect("commit");
    let ran = ended(redrive);
    assert_eq!(ran.code, 0, "{ran:?}");
    let seqs: Vec<i32> = fixture.waiting().await.iter().map(|row| row.seq).collect();
    assert_eq!(
        seqs,
        [1, 2],
        "not the first alone: its follower would be stuck"
    );
    assert!(fixture.parked().await.is_empty());
    assert_eq!(fixture.actions().await.len(), 2);
}

#[tokio::test]
async fn p4_a_relay_that_decided_before_a_redrive_may_not_park_after_it() {
    let fixture = Fixture::new().await;
    fixture.run(
        "UPDATE outbox_lease SET owner = 'relay-a', epoch = 1, lease_until = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR",
    )
    .await;
    let culprit = fixture.park(5, 3, 1, REFUSED).await;
    // The relay's statement, with the values of its last renewal.
    let may_park = || async {
        sqlx::query(
            "SELECT 1 FROM outbox_lease WHERE shard = ? AND owner = 'relay-a' AND epoch = 1 AND redrive_gen = 0 \
             AND lease_until >= UTC_TIMESTAMP(6) FOR UPDATE",
        )
        .bind(Shard::of(OrderId(5)))
        .fetch_optional(&fixture.db.pool)
        .await
        .expect("the relay's question")
        .is_some()
    };
    assert!(may_park().await);
    fixture.act(0, &["discard", "--event", &culprit.to_string()]);
    assert!(
        !may_park().await,
        "it would park new events of the order behind nothing"
    );
    fixture.run("UPDATE outbox_lease SET redrive_gen = 0").await;
    fixture.park(5, 8, 2, REFUSED).await;
    fixture.act(0, &["redrive", "--all"]);
    assert!(!may_park().await);
}

#[tokio::test]
async fn p3_many_orders_are_put_back_whole_in_several_transactions() {
    let fixture = Fixture::new().await;
    for order in 0..20 {
        for seq in 1..=40 {
            fixture
                .wait_in_outbox(order, order * 100 + i64::from(seq), seq)
                .await;
        }
    }
    fixture.run(
        "INSERT INTO outbox_parked SELECT *, 'x', seq = 1, UTC_TIMESTAMP(6) FROM outbox WHERE seq > 20",
    )
    .await;
    fixture.run("DELETE FROM outbox WHERE seq > 20").await;
    // One of them alone is more than a transaction's share.
    fixture
        .run("UPDATE outbox_parked SET msg_key = '3' WHERE shard = CRC32('3') & 15")
        .await;
    let both = [fixture.waiting().await, fixture.parked().await].concat();
    let shards: std::collections::BTreeSet<Shard> =
        fixture.parked().await.iter().map(|row| row.shard).collect();

    let report = fixture.act(0, &["redrive", "--all"]).json();
    assert_eq!(report["redriven_rows"], 400);
    assert!(fixture.parked().await.is_empty());
    let mut expected = both;
    expected.sort_by_key(|row| (row.shard, row.id));
    assert_eq!(fixture.waiting().await, expected);
    assert_eq!(fixture.actions().await.len(), 400);
    let raised = fixture
        .generations()
        .await
        .iter()
        .filter(|n| **n > 0)
        .count();
    assert_eq!(raised, shards.len());
}

#[tokio::test]
async fn p3_a_row_that_is_parked_and_waiting_rolls_its_transaction_back() {
    let fixture = Fixture::new().await;
    // Shards are worked on in ascending order.
    let (mut low, mut high) = (5, 6);
    if Shard::of(OrderId(low)) > Shard::of(OrderId(high)) {
        (low, high) = (high, low);
    }
    fixture.park(low, 1, 1, REFUSED).await;
    fixture.park(high, 2, 1, REFUSED).await;
    fixture.park(high, 3, 2, FOLLOWS).await;
    fixture.wait_in_outbox(high, 3, 2).await;
    let before = fixture.parked().await;

    let ran = fixture.act(1, &["redrive", "--all"]);
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
    let left: Vec<Row> = fixture.parked().await;
    assert_eq!(left, before[1..], "neither of the other two");
    assert_eq!(fixture.waiting().await.len(), 2);
    assert_eq!(fixture.generation(high).await, 0);
    assert_eq!(
        fixture.actions().await.len(),
        1,
        "only what was done is recorded"
    );
}

/// The machine sleeps, or a person types Ctrl-Z, while the command locks the row by which the relay renews its lease.
#[tokio::test]
async fn a_redrive_that_freezes_with_the_lease_row_locked_is_cut_off_within_seconds() {
    let fixture = Fixture::new().await;
    fixture.park(5, 3, 1, REFUSED).await;
    let mut other = fixture.db.pool.begin().await.expect("begin");
    other
        .execute("SELECT 1 FROM outbox_parked FOR UPDATE")
        .await
        .expect("lock");
    let redrive = spawn(&fixture, &REDRIVE);
    await_lock_waiter(&fixture).await;
    let pid = Pid::from_child(&redrive);
    kill_process(pid, Signal::STOP).expect("a child of ours");
    let frozen = Instant::now();
    other.rollback().await.expect("rollback");
    let mut relay = fixture.db.pool.begin().await.expect("begin");
    relay
        .execute("SET SESSION innodb_lock_wait_timeout = 20")
        .await
        .expect("lock wait timeout");
    relay
        .execute("SELECT 1 FROM outbox_lease FOR UPDATE")
        .await
        .expect("the row is unlocked");
    // The session is ended after 2 s; for other idle sessions the server waits 30 s.
    assert!(frozen.elapsed() < Duration::from_secs(15));
    relay.rollback().await.expect("rollback");
    kill_process(pid, Signal::CONT).expect("a child of ours");
    let ran = ended(redrive);
    assert_ne!(ran.code, 0, "it says so: {ran:?}");
    assert_eq!(fixture.parked().await.len(), 1, "nothing was half done");
    fixture.act(0, &["redrive", "--order", "5"]);
    assert_eq!(fixture.waiting().await.len(), 1);
}
