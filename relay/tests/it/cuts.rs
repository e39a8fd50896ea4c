//! A connection to MySQL is cut, loses a deadlock or freezes. Then no event is lost or sent again, and the locks of that
//! session block others for a few seconds at most.

use std::time::{Duration, Instant};

use shared::domain::ids::{OrderId, Shard};
use shared::test_support::mysql_proxy::{Cut, MysqlProxy};
use sqlx::{Connection, Executor};
use time::PrimitiveDateTime;

use crate::harness::{Event, Fixture, RunningRelay, assert_history, history, until};
use crate::program::Program;

const DELETE: &str = "/* delete_published */";
const LOOK_UP: &str = "/* read_predecessors */";
const COUNT: &str = "/* read_ids */";
const HEARTBEAT: &str = "/* heartbeat */";
const OLDEST: &str = "/* read_oldest */";
const LAST_OF_PARKING: &str = "/* delete_copied */";
/// Enough for the idle timeout in a transaction, a short lease, a lock wait, and a loaded machine. Below the 30 s after
/// which the server ends every idle session.
const A_FEW_SECONDS: Duration = Duration::from_secs(20);
/// For a frozen relay and its successor: after this time without a heartbeat the frozen one has no share any more.
const SHORT_LEASE: &str = "--lease-ms=2000";

async fn relay_behind_proxy(fixture: &Fixture, flags: &[&str]) -> (RunningRelay, MysqlProxy) {
    let (proxy, url) = MysqlProxy::before(fixture.db.url()).await;
    let url = format!("--database-url={url}");
    let relay = fixture.relay_under(&[&[&*url], flags].concat()).await;
    (relay, proxy)
}

/// Three rounds under load. In each, the connection is cut at the DELETE. Returns how many deleted rows were missing.
async fn cut_at_the_delete(cut: Cut) -> u64 {
    const ROUNDS: i64 = 3;
    let fixture = Fixture::create().await;
    let (relay, proxy) = relay_behind_proxy(&fixture, &[]).await;
    let mut events = Vec::new();
    for round in 0..ROUNDS {
        proxy.arm(DELETE, cut);
        let written = history(round * 100..round * 100 + 100, 4);
        fixture.insert_all(&written).await;
        events.extend(written);
        until("the connection was cut", || async { proxy.sprung() }).await;
    }
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(
        assert_history(&received, &events),
        0,
        "nothing is sent again"
    );
    assert!(relay.database_errors("delete", "connection_lost") >= 3);
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
        "the retry found them deleted"
    );
}

/// The connection that counts held rows freezes. All others flow before its deadline has passed.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_count_of_held_rows_that_is_not_answered_delays_no_other_row() {
    let fixture = Fixture::create().await;
    let (relay, proxy) = relay_behind_proxy(&fixture, &[]).await;
    fixture.insert(&Event::new(5, 5, 1).to("no topic")).await;
    until("it is passed over", || async {
        relay.metrics.held_back_rows.get() == 1
    })
    .await;
    proxy.arm(COUNT, Cut::FrozenAfterServer);
    until("a count waits", || async { proxy.sprung() }).await;
    let errors = |work| relay.database_errors(work, "silent");
    for seq in 1..=3 {
        fixture.insert(&Event::new(7, 7, seq)).await;
        until("it is sent", || async {
            fixture.count("outbox").await == 1
        })
        .await;
    }
    assert_eq!((errors("count"), errors("read")), (0, 0), "it still waits");
    until("its deadline has passed", || async { errors("count") == 1 }).await;
    assert_eq!(errors("read"), 0);
    relay.stop().await;
}

/// Every look-up of a predecessor fails. Rows that need no look-up are sent all the same.
#[tokio::test(flavor = "multi_thread")]
async fn p3_while_look_ups_fail_only_rows_that_need_one_wait() {
    let fixture = Fixture::create().await;
    let first = fixture.relay().await;
    let mut events = history(0..1, 1);
    fixture.insert_all(&events).await;
    fixture.outbox_is_empty().await;
    first.stop().await;
    // A new relay does not know that seq 1 was sent.
    let mut written = vec![Event::new(0, 0, 2)];
    written.extend(history(1..51, 1));
    let (relay, proxy) = relay_behind_proxy(&fixture, &[]).await;
    proxy.arm_at_each(LOOK_UP, Cut::BeforeAnswer);
    fixture.insert_at_once(&written).await;
    events.extend(written);
    until("all but one are published", || async {
        fixture.count("outbox").await == 1
    })
    .await;
    proxy.disarm();
    assert!(relay.database_errors("predecessors", "connection_lost") >= 1);
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(
        assert_history(&received, &events),
        0,
        "nothing is sent again"
    );
    relay.stop().await;
}

/// A relay trusts its leases for 60 % of their length. A renewal without a response takes 20 % of it.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_renewal_without_a_response_is_repeated_while_the_leases_are_still_trusted() {
    let fixture = Fixture::create().await;
    let (relay, proxy) = relay_behind_proxy(&fixture, &["--lease-ms=20000"]).await;
    until("it owns all shards", || async {
        fixture.owners().await.values().eq([&16])
    })
    .await;
    let before = renewed_until(&fixture).await;
    until("it renews", || async {
        renewed_until(&fixture).await > before
    })
    .await;
    // Before the leases are renewed in this round.
    proxy.arm(HEARTBEAT, Cut::FrozenAfterServer);
    until("a round has failed", || async {
        relay.database_errors("lease", "silent") > 0
    })
    .await;
    let last = renewed_until(&fixture).await;
    until("it renews again", || async {
        renewed_until(&fixture).await > last
    })
    .await;
    let apart = renewed_until(&fixture).await - last;
    assert!(apart < time::Duration::seconds(12), "{apart}");
    assert_eq!(relay.metrics.leases_lost.get(), 0);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_gauge_grows_until_its_query_succeeds_again() {
    let fixture = Fixture::create().await;
    let (relay, proxy) = relay_behind_proxy(&fixture, &[]).await;
    let age = || async { relay.metrics.oldest_age.get() };
    proxy.arm_at_each(OLDEST, Cut::BeforeServer);
    until("the age has grown", || async {
        age().await > Duration::from_secs(4)
    })
    .await;
    assert!(relay.database_errors("census", "connection_lost") >= 3);
    proxy.disarm();
    until("the age is that of the empty outbox", || async {
        age().await == Duration::ZERO
    })
    .await;
    relay.stop().await;
}

async fn renewed_until(fixture: &Fixture) -> PrimitiveDateTime {
    sqlx::query_scalar("SELECT MIN(lease_until) FROM outbox_lease")
        .fetch_one(fixture.pool())
        .await
        .expect("lease_until")
}

/// The other session locks rows in the opposite order and has written more, so MySQL chooses the DELETE as the victim.
#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_delete_that_loses_a_deadlock_is_retried() {
    let fixture = Fixture::create().await;
    fixture
        .pool()
        .execute("CREATE TABLE ballast (id INT AUTO_INCREMENT PRIMARY KEY, n INT)")
        .await
        .expect("ballast");
    let mut events = Vec::new();
    let mut lost = 0;
    // If the acknowledgements arrive in two parts, there are two DELETEs and no deadlock. Then try again.
    for order in 0..20 {
        let written: Vec<Event> = (1..=30).map(|seq| Event::new(order, order, seq)).collect();
        lost += force_a_deadlock(&fixture, OrderId(order), &written).await;
        events.extend(written);
        if lost > 0 {
            break;
        }
    }
    assert!(lost > 0, "MySQL never chose the relay's DELETE");
    let received = fixture.topics.read_events(events.len()).await;
    assert_eq!(
        assert_history(&received, &events),
        0,
        "nothing is sent again"
    );
}

/// Returns how many deadlocks the relay lost.
async fn force_a_deadlock(fixture: &Fixture, order: OrderId, events: &[Event]) -> u64 {
    fixture.insert_all(events).await;
    let mut other = fixture.pool().begin().await.expect("begin");
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
    // READ COMMITTED: the rows that the scan only passes stay unlocked.
    lock(30).fetch_one(&mut *other).await.expect("the last row");
    let relay = fixture.relay().await;
    until("the DELETE waits for the last row", || async {
        fixture.running("delete_published").await > 0
    })
    .await;
    lock(2)
        .fetch_optional(&mut *other)
        .await
        .expect("the other session wins");
    other.rollback().await.expect("rollback");
    fixture.outbox_is_empty().await;
    let lost = relay.database_errors("delete", "lock_conflict");
    relay.stop().await;
    lost
}

/// Inserts each event in its own transaction, with the shortest possible lock wait timeout of one second. Returns the
/// longest time.
async fn insert_each(fixture: &Fixture, events: &[Event]) -> Duration {
    let mut conn = fixture
        .pool()
        .acquire()
        .await
        .expect("a connection")
        .detach();
    conn.execute("SET SESSION innodb_lock_wait_timeout = 1")
        .await
        .expect("set");
    let mut slowest = Duration::ZERO;
    for event in events {
        let begun = Instant::now();
        fixture.insert_on(&mut conn, event).await;
        slowest = slowest.max(begun.elapsed());
    }
    conn.close().await.expect("close");
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_p4_a_relay_frozen_inside_its_delete_blocks_neither_writers_nor_its_successor() {
    let fixture = Fixture::create().await;
    let mut events = history(0..100, 3);
    fixture.insert_all(&events).await;
    // The DELETE waits for this row, with locks on others, until the relay is frozen.
    let mut lock = fixture.pool().begin().await.expect("begin");
    lock.execute("SELECT id FROM outbox ORDER BY shard DESC, id DESC LIMIT 1 FOR UPDATE")
        .await
        .expect("lock");
    let frozen = Program::start(&fixture, &[SHORT_LEASE]).await;
    until("the DELETE waits", || async {
        fixture.running("delete_published").await > 0
    })
    .await;
    frozen.freeze();
    let more: Vec<Event> = (0..100).map(|id| Event::new(id, id, 4)).collect();
    let slowest = insert_each(&fixture, &more).await;
    events.extend(more);
    lock.rollback().await.expect("rollback");

    let begun = Instant::now();
    let successor = fixture.relay_under(&[SHORT_LEASE]).await;
    fixture.outbox_is_empty().await;
    let emptied = begun.elapsed();
    frozen.thaw();
    let last: Vec<Event> = (0..100).map(|id| Event::new(id, id, 5)).collect();
    fixture.insert_all(&last).await;
    events.extend(last);
    fixture.outbox_is_empty().await;
    let received = fixture.topics.read_events(events.len()).await;
    let again = assert_history(&received, &events);
    eprintln!(
        "frozen in the DELETE: slowest insert {slowest:?}, outbox empty {emptied:?} after the successor's start, {again} repeats"
    );
    assert!(emptied < A_FEW_SECONDS, "{emptied:?}");
    frozen.kill_9().await;
    successor.stop().await;
}

/// One order has a record that is too large. When the session freezes, its parking transaction holds locks on the lease
/// row and on rows of the outbox.
fn one_too_large(returns: i64) -> Vec<Event> {
    let mut events = history(0..returns, 2);
    events[5].payload = vec![b'x'; 250_000];
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_relay_frozen_while_it_parks_blocks_neither_writers_nor_its_successor() {
    let fixture = Fixture::create().await;
    let (proxy, url) = MysqlProxy::before(fixture.db.url()).await;
    proxy.arm(LAST_OF_PARKING, Cut::FrozenAfterServer);
    fixture.insert_all(&one_too_large(100)).await;
    let flags = [SHORT_LEASE, &format!("--database-url={url}")];
    let frozen = Program::start(&fixture, &flags).await;
    until("it parks", || async { proxy.sprung() }).await;
    frozen.freeze();
    let begun = Instant::now();
    let successor = fixture.relay_under(&[SHORT_LEASE]).await;
    let more: Vec<Event> = (0..100).map(|id| Event::new(id, id, 3)).collect();
    let slowest = insert_each(&fixture, &more).await;
    fixture.outbox_is_empty().await;
    let emptied = begun.elapsed();
    eprintln!("frozen in parking: slowest insert {slowest:?}, outbox empty after {emptied:?}");
    assert!(emptied < A_FEW_SECONDS, "{emptied:?}");
    assert_eq!(
        fixture.count("outbox_parked").await,
        3,
        "the successor parks one order"
    );
    frozen.kill_9().await;
    successor.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_relay_whose_parking_connection_stalls_continues_within_seconds() {
    let fixture = Fixture::create().await;
    let (relay, proxy) = relay_behind_proxy(&fixture, &[]).await;
    proxy.arm(LAST_OF_PARKING, Cut::FrozenAfterServer);
    fixture.insert_all(&one_too_large(100)).await;
    until("it parks", || async { proxy.sprung() }).await;
    let begun = Instant::now();
    let more: Vec<Event> = (0..100).map(|id| Event::new(id, id, 3)).collect();
    let slowest = insert_each(&fixture, &more).await;
    fixture.outbox_is_empty().await;
    let emptied = begun.elapsed();
    eprintln!("stalled in parking: slowest insert {slowest:?}, outbox empty after {emptied:?}");
    assert!(emptied < A_FEW_SECONDS, "{emptied:?}");
    assert_eq!(fixture.count("outbox_parked").await, 3, "one order");
    relay.stop().await;
}
