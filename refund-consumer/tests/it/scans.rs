//! Each kind of work is found by a scan of its own, and none walks over what was settled before.

use refund_consumer::floors::{BEGINNING, Floors};
use refund_consumer::store::{Page, Range, Waiting, oldest, read_gauges, waiting_returns};
use shared::domain::status::Status;
use shared::test_support::mysql_proxy::{Cut, MysqlProxy};
use sqlx::mysql::MySqlConnection;

use crate::claims::approve;
use crate::harness::fake::Fake;
use crate::harness::{World, until_true};

/// The scans of attempts get no response, each until its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_scans_that_hang_delay_no_approval() {
    let world = World::new().await;
    let (proxy, url) = MysqlProxy::before(world.db.url()).await;
    let url = format!("--database-url={url}");
    proxy.arm_at_each("/* due_attempts */", Cut::FrozenAfterServer);
    let flags = [url.as_str(), "--initiated-grace-secs=3600"];
    let running = world.start(Fake::with_keys(&[]), &flags).await;
    let filed = world.file_with(1, true).await;
    approve(&world, filed.return_id).await;
    world.wait_for(filed.return_id, "refunded").await;
    running.stop().await;
}

/// The same for an attempt that nobody owns, as a retry is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_a_scan_that_hangs_delays_no_retry() {
    let world = World::new().await;
    let filed = world.file(1).await;
    for sql in [
        "UPDATE returns SET status = 'refund_pending' WHERE id = ?",
        "INSERT INTO refunds (return_id, attempt, idempotency_key, amount, currency, state, next_check_at, created_at, \
         updated_at) SELECT id, 1, 'key', refund_amount, currency, 'claimed', UTC_TIMESTAMP(6), created_at, updated_at \
         FROM returns WHERE id = ?",
    ] {
        world.execute(sql, filed.return_id.0).await;
    }
    let (proxy, url) = MysqlProxy::before(world.db.url()).await;
    let url = format!("--database-url={url}");
    proxy.arm_at_each("f.state = 'pending'", Cut::FrozenAfterServer);
    let running = world.start(Fake::with_keys(&[]), &[&url]).await;
    world.wait_for(filed.return_id, "refunded").await;
    running.stop().await;
}

/// A clock that was set back, or a transaction that commits late, puts rows before the floors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_rows_older_than_the_floors_are_found() {
    let world = World::new().await;
    world.file_days_ago(2, 1..=1, |_| true).await;
    let flags = ["--initiated-grace-secs=0"];
    let running = world.start(world.simulated(), &flags).await;
    let review = &running.metrics.rows.oldest[1];
    until_true("the gauges are read", || !review.get().is_zero()).await;
    let filed = world.file_days_ago(400, 2..=4, |_| false).await;
    for one in &filed {
        world.wait_for(one.return_id, "refunded").await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_floor_leaves_out_only_what_the_sweep_finds() {
    let world = World::new().await;
    let (floors, range) = (Floors::default(), Range::Returns(Status::Initiated, false));
    let mut conn = world.db.pool.acquire().await.expect("a connection");
    raise(&mut conn, &floors).await;
    let old = world.file_days_ago(400, 1..=1, |_| false).await;
    let waiting = Waiting::Initiated { grace_secs: 0 };
    let found = async |conn: &mut MySqlConnection| {
        let page = Page::from(floors.of(range));
        let rows = waiting_returns(conn, waiting, page, 10).await;
        rows.expect("a page").first().map(|row| row.id)
    };
    assert_eq!(found(&mut conn).await, None);
    let read = oldest(&mut conn, range, BEGINNING, "simulated").await;
    floors.set(&read.expect("a sweep"));
    assert_eq!(found(&mut conn).await, Some(old[0].return_id));
    raise(&mut conn, &floors).await;
    assert_eq!(found(&mut conn).await, Some(old[0].return_id));
}

async fn raise(conn: &mut MySqlConnection, floors: &Floors) {
    let from = floors.clone();
    let gauges = read_gauges(conn, "simulated", move |range| from.of(range)).await;
    for read in &gauges.expect("the gauges").oldest {
        floors.raise(read);
    }
}
