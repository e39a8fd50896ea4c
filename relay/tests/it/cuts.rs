//! A session with MySQL is cut, loses a deadlock or is frozen: nothing is lost or sent again for it, and no lock of
//! it stops others for more than seconds.

use std::time::{Duration, Instant};

use shared::domain::ids::{OrderId, Shard};
use shared::test_support::mysql_proxy::{Cut, MysqlProxy};
use sqlx::{Connection, Executor};
use time::PrimitiveDateTime;

use crate::harness::{Event, Running, Stage, assert_history, history, until};
use crate::program::Program;

const DELETE: &str = "/* delete_published */";
const LOOK_UP: &str = "/* read_predecessors */";
const LAST_OF_PARKING: &str = "/* delete_copied */";
/// What "no more than seconds" means here: the silence allowed in a transaction, a short lease, a lock wait, and a
/// loaded machine. Below the 30 s after which the server ends any silent session.
const SECONDS: Duration = Duration::from_secs(20);
/// Of a frozen relay and its heir: who has not shown itself for so long counts for no share any more.
const SHORT_LEASE: &str = "--lease-ms=2000";

async fn relay_behind_proxy(stage: &Stage, flags: &[&str]) -> (Running, MysqlProxy) {
    let (proxy, url) = MysqlProxy::before(stage.db.url()).await;
    let url = format!("--database-url={url}");
    let relay = stage.relay_under(&[&[&*url], flags].concat()).await;
    (relay, proxy)
}

/// Three rounds under load; in each the connection is cut at the delete. Answers how many deleted rows were missing.
async fn cut_at_the_delete(cut: Cut) -> u64 {
    const ROUNDS: i64 = 3;
    let stage = Stage::set().await;
    let (relay, proxy) = relay_behind_proxy(&stage, &[]).await;
    let mut events = Vec::new();
    for round in 0..ROUNDS {
        proxy.arm(DELETE, cut);
        let written = history(round * 100..round * 100 + 100, 4);
        stage.insert_all(&written).await;
        events.extend(written);
        until("the connection was cut", || async { proxy.sprung() }).await;
    }
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&seen, &events), 0, "nothing is sent again");
    assert!(relay.database_errors("delete", "connection_lost") >= 3.0);
    let missing = relay.metrics.missing_rows.get();
    relay.stop().await;
    missing
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_connection_cut_before_the_server_got_the_delete_costs_nothing() {
    assert_eq!(cut_at_the_delete(Cut::BeforeServer).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_connection_cut_after_the_server_did_the_delete_costs_nothing() {
    assert!(
        cut_at_the_delete(Cut::BeforeAnswer).await > 0,
        "the second try found them deleted"
    );
}

/// Each look-up of a predecessor fails: what needs none is not held up by what does.
#[tokio::test(flavor = "multi_thread")]
async fn p3_while_look_ups_fail_only_rows_that_need_one_wait() {
    let stage = Stage::set().await;
    let first = stage.relay().await;
    let mut events = history(0..1, 1);
    stage.insert_all(&events).await;
    stage.outbox_is_empty().await;
    first.stop().await;
    // A new relay does not know of seq 1.
    let mut written = vec![Event::new(0, 0, 2)];
    written.extend(history(1..51, 1));
    let (relay, proxy) = relay_behind_proxy(&stage, &[]).await;
    proxy.arm_at_each(LOOK_UP, Cut::BeforeAnswer);
    stage.insert_at_once(&written).await;
    events.extend(written);
    until("all but one are published", || async {
        stage.count("outbox").await == 1
    })
    .await;
    proxy.disarm();
    assert!(relay.database_errors("predecessors", "connection_lost") >= 1.0);
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&seen, &events), 0, "nothing is sent again");
    relay.stop().await;
}

/// A relay trusts its leases for 60 % of their length; a round that hears nothing takes 20 % of it.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_renewal_that_hears_nothing_is_made_up_for_while_the_leases_are_still_trusted() {
    let stage = Stage::set().await;
    let (relay, proxy) = relay_behind_proxy(&stage, &["--lease-ms=20000"]).await;
    until("it owns all", || async {
        stage.owners().await.values().eq([&16])
    })
    .await;
    let before = renewed_until(&stage).await;
    until("it renews", || async {
        renewed_until(&stage).await > before
    })
    .await;
    proxy.fall_silent();
    until("a round has failed", || async {
        relay.database_errors("lease", "silent") > 0.0
    })
    .await;
    let last = renewed_until(&stage).await;
    until("it renews again", || async {
        renewed_until(&stage).await > last
    })
    .await;
    let apart = renewed_until(&stage).await - last;
    assert!(apart < time::Duration::seconds(12), "{apart}");
    assert_eq!(relay.metrics.leases_lost.get(), 0);
    relay.stop().await;
}

async fn renewed_until(stage: &Stage) -> PrimitiveDateTime {
    sqlx::query_scalar("SELECT MIN(lease_until) FROM outbox_lease")
        .fetch_one(stage.pool())
        .await
        .expect("lease_until")
}

/// The other session waits for rows in the opposite order and has written more, so that MySQL chooses the DELETE.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_delete_that_loses_a_deadlock_is_done_again() {
    let stage = Stage::set().await;
    stage
        .pool()
        .execute("CREATE TABLE ballast (id INT AUTO_INCREMENT PRIMARY KEY, n INT)")
        .await
        .expect("ballast");
    let mut events = Vec::new();
    let mut lost = 0.0;
    // Acknowledgements in two parts make two DELETEs, which cannot be caught: then once more.
    for order in 0..20 {
        let written: Vec<Event> = (1..=30).map(|seq| Event::new(order, order, seq)).collect();
        lost += force_a_deadlock(&stage, OrderId(order), &written).await;
        events.extend(written);
        if lost > 0.0 {
            break;
        }
    }
    assert!(lost > 0.0, "MySQL never chose the relay's DELETE");
    let seen = stage.topics.read_events(events.len()).await;
    assert_eq!(assert_history(&seen, &events), 0, "nothing is sent again");
}

/// Answers how many deadlocks the relay lost.
async fn force_a_deadlock(stage: &Stage, order: OrderId, events: &[Event]) -> f64 {
    stage.insert_all(events).await;
    let mut other = stage.pool().begin().await.expect("begin");
    other
        .execute(
            "INSERT INTO ballast (n) WITH RECURSIVE rows_of (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM rows_of \
             WHERE n < 1000) SELECT n FROM rows_of",
        )
        .await
        .expect("ballast");
    let lock = |seq: i32| {
        sqlx::query("SELECT id FROM outbox WHERE shard = ? AND aggregate_id = ? AND seq = ? AND id > 0 FOR UPDATE")
            .bind(Shard::of(order))
            .bind(order)
            .bind(seq)
    };
    // Every row that is looked at on the way stays unlocked: READ COMMITTED.
    lock(30).fetch_one(&mut *other).await.expect("the last row");
    let relay = stage.relay().await;
    until("the DELETE waits for the last row", || async {
        stage.running("delete_published").await > 0
    })
    .await;
    lock(2)
        .fetch_optional(&mut *other)
        .await
        .expect("the other session wins");
    other.rollback().await.expect("rollback");
    stage.outbox_is_empty().await;
    let lost = relay.database_errors("delete", "lock_conflict");
    relay.stop().await;
    lost
}

/// Inserts one event per order, each in a transaction of its own that may wait for a lock for one second, the shortest
/// there is; answers the slowest.
async fn insert_each(stage: &Stage, events: &[Event]) -> Duration {
    let mut conn = stage.pool().acquire().await.expect("a connection").detach();
    conn.execute("SET SESSION innodb_lock_wait_timeout = 1")
        .await
        .expect("set");
    let mut slowest = Duration::ZERO;
    for event in events {
        let begun = Instant::now();
        stage.insert_on(&mut conn, event).await;
        slowest = slowest.max(begun.elapsed());
    }
    conn.close().await.expect("close");
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_relay_frozen_inside_its_delete_hinders_neither_writers_nor_its_heir() {
    let stage = Stage::set().await;
    let mut events = history(0..100, 3);
    stage.insert_all(&events).await;
    // It keeps the DELETE waiting half done, with row locks, until the relay is frozen.
    let mut lock = stage.pool().begin().await.expect("begin");
    lock.execute("SELECT id FROM outbox ORDER BY shard DESC, id DESC LIMIT 1 FOR UPDATE")
        .await
        .expect("lock");
    let frozen = Program::start(&stage, &[SHORT_LEASE]).await;
    until("the DELETE waits", || async {
        stage.running("delete_published").await > 0
    })
    .await;
    frozen.freeze();
    let more: Vec<Event> = (0..100).map(|id| Event::new(id, id, 4)).collect();
    let slowest = insert_each(&stage, &more).await;
    events.extend(more);
    lock.rollback().await.expect("rollback");

    let begun = Instant::now();
    let heir = stage.relay_under(&[SHORT_LEASE]).await;
    stage.outbox_is_empty().await;
    let emptied = begun.elapsed();
    frozen.thaw();
    let last: Vec<Event> = (0..100).map(|id| Event::new(id, id, 5)).collect();
    stage.insert_all(&last).await;
    events.extend(last);
    stage.outbox_is_empty().await;
    let seen = stage.topics.read_events(events.len()).await;
    let again = assert_history(&seen, &events);
    eprintln!(
        "frozen in the delete: slowest insert {slowest:?}, emptied {emptied:?} after the heir's start, {again} again"
    );
    assert!(emptied < SECONDS, "{emptied:?}");
    frozen.kill_9().await;
    heir.stop().await;
}

/// One order's record is too large: its parking holds the lease row and rows of the outbox when the session freezes.
fn one_too_large(returns: i64) -> Vec<Event> {
    let mut events = history(0..returns, 2);
    events[5].payload = vec![b'x'; 250_000];
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_relay_frozen_while_it_parks_hinders_neither_writers_nor_its_heir() {
    let stage = Stage::set().await;
    let (proxy, url) = MysqlProxy::before(stage.db.url()).await;
    proxy.arm(LAST_OF_PARKING, Cut::FrozenAfterServer);
    stage.insert_all(&one_too_large(100)).await;
    let flags = [SHORT_LEASE, &format!("--database-url={url}")];
    let frozen = Program::start(&stage, &flags).await;
    until("it parks", || async { proxy.sprung() }).await;
    frozen.freeze();
    let begun = Instant::now();
    let heir = stage.relay_under(&[SHORT_LEASE]).await;
    let more: Vec<Event> = (0..100).map(|id| Event::new(id, id, 3)).collect();
    let slowest = insert_each(&stage, &more).await;
    stage.outbox_is_empty().await;
    let emptied = begun.elapsed();
    eprintln!("frozen in parking: slowest insert {slowest:?}, emptied after {emptied:?}");
    assert!(emptied < SECONDS, "{emptied:?}");
    assert_eq!(
        stage.count("outbox_parked").await,
        3,
        "one order, by the heir"
    );
    frozen.kill_9().await;
    heir.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_relay_whose_parking_session_falls_silent_goes_on_within_seconds() {
    let stage = Stage::set().await;
    let (relay, proxy) = relay_behind_proxy(&stage, &[]).await;
    proxy.arm(LAST_OF_PARKING, Cut::FrozenAfterServer);
    stage.insert_all(&one_too_large(100)).await;
    until("it parks", || async { proxy.sprung() }).await;
    let begun = Instant::now();
    let more: Vec<Event> = (0..100).map(|id| Event::new(id, id, 3)).collect();
    let slowest = insert_each(&stage, &more).await;
    stage.outbox_is_empty().await;
    let emptied = begun.elapsed();
    eprintln!("silent in parking: slowest insert {slowest:?}, emptied after {emptied:?}");
    assert!(emptied < SECONDS, "{emptied:?}");
    assert_eq!(stage.count("outbox_parked").await, 3, "one order");
    relay.stop().await;
}
