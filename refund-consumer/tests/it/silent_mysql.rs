//! MySQL falls silent in the middle of a unit of work: the connection stays open and no response comes. Or it responds,
//! but another session has locked a table. Other returns go on, the alarm's gauge grows, and nothing is paid twice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use refund_consumer::app::Drain;
use shared::domain::transition::Filed;
use shared::test_support::mysql_proxy::{Cut, MysqlProxy};
use shared::test_support::until as until_within;
use shared::test_support::{keep_when_silent, long_form};
use sqlx::Executor;

use crate::harness::fake::{Fake, Step};
use crate::harness::{Running, WAIT_DEADLINE, World};

/// After the end of the silence everything resumes within this time.
const RESUMES: Duration = Duration::from_secs(15);
/// How long a table stays locked: longer than the deadline of any unit of work. `LOCKED_SECS=60` is the long form.
fn locked() -> Duration {
    Duration::from_secs(long_form("LOCKED_SECS", 20))
}

/// A consumer behind a proxy. Its scans leave new returns to their messages for `grace_secs`.
async fn start(world: &World, gateway: &Fake, grace_secs: u32) -> (MysqlProxy, Running) {
    let (proxy, url) = MysqlProxy::before(world.db.url()).await;
    let url = format!("--database-url={url}");
    let grace = format!("--initiated-grace-secs={grace_secs}");
    let running = world.start(gateway.clone(), &[&url, &grace]).await;
    (proxy, running)
}

async fn file_and_announce(world: &World, order: i64) -> Filed {
    let filed = world.file(order).await;
    world.announce(&filed).await;
    filed
}

async fn file_for(world: &World, order: i64, found_by: FoundBy) -> Filed {
    match found_by {
        FoundBy::Intake => file_and_announce(world, order).await,
        FoundBy::Scan => world.file(order).await,
    }
}

async fn refunded_within(world: &World, filed: &Filed, deadline: Duration) {
    let what = format!("return {} is refunded", filed.return_id);
    until_within(&what, deadline, || async {
        world.status(filed.return_id).await.0 == "refunded"
    })
    .await;
}

/// The host is back, and its connections are reset.
fn end_of_silence(proxy: &MysqlProxy) {
    proxy.go_away();
    proxy.come_back();
}

fn assert_each_paid_once(gateway: &Fake, returns: usize) {
    let mut effects = gateway.effects();
    effects.sort_unstable();
    effects.dedup();
    assert_eq!((gateway.effects().len(), effects.len()), (returns, returns));
}

/// The largest age of all kinds of waiting returns, as scraped.
fn oldest(running: &Running) -> Duration {
    let ages = running.metrics.rows.oldest.iter().map(|age| age.get());
    ages.max().unwrap_or_default()
}

fn readyz(running: &Running) -> String {
    tokio::task::block_in_place(|| {
        let mut stream = TcpStream::connect(running.ops).expect("connect");
        write!(
            stream,
            "GET /readyz?verbose HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .expect("request");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("a response");
        response
    })
}

async fn readyz_shows(running: &Running, line: &str) {
    until_within(line, WAIT_DEADLINE, || async {
        readyz(running).contains(line)
    })
    .await;
}

/// Which part of the consumer finds the new returns; the other one leaves them alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FoundBy {
    Intake,
    Scan,
}

/// Freezes one connection at `statement`, while it holds locks; another return must be refunded meanwhile.
async fn silence_at(statement: &'static str, found_by: FoundBy) {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[]);
    let grace_secs = match found_by {
        FoundBy::Intake => 3600,
        FoundBy::Scan => 0,
    };
    let (proxy, running) = start(&world, &gateway, grace_secs).await;
    proxy.arm(statement, Cut::FrozenAfterServer);
    let first = file_for(&world, 1, found_by).await;
    until_within(statement, WAIT_DEADLINE, || async { proxy.sprung() }).await;

    let before = oldest(&running);
    let second = file_for(&world, 2, found_by).await;
    until_within("the age grows", WAIT_DEADLINE, || async {
        oldest(&running) > before
    })
    .await;
    refunded_within(&world, &second, WAIT_DEADLINE).await;
    readyz_shows(&running, "ok gauges_read_ago_secs").await;

    end_of_silence(&proxy);
    if found_by == FoundBy::Intake {
        // Its claim was left to the scan, which begins only after an hour here: the message comes again.
        world.announce(&first).await;
    }
    refunded_within(&world, &first, RESUMES).await;
    assert_each_paid_once(&gateway, 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_silence_at_a_settlement_stops_no_other_return() {
    silence_at("/* update_attempts */", FoundBy::Intake).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_silence_at_a_claim_of_a_message_stops_no_other_return() {
    silence_at("/* insert_attempts */", FoundBy::Intake).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_silence_at_a_claim_of_a_scan_stops_no_other_return() {
    silence_at("/* insert_attempts */", FoundBy::Scan).await;
}

/// The mark may be written, but its response is lost: the gateway is not called, so no look-up is needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p5_an_unconfirmed_mark_is_taken_back_and_the_refund_is_sent_once() {
    let world = World::new().await;
    let gateway = Fake::without_keys(&[]);
    let (proxy, running) = start(&world, &gateway, 0).await;
    proxy.arm("/* mark_sent */", Cut::FrozenAfterServer);
    let filed = file_and_announce(&world, 1).await;
    until_within("the mark is silent", WAIT_DEADLINE, || async {
        proxy.sprung()
    })
    .await;
    refunded_within(&world, &filed, WAIT_DEADLINE).await;
    assert_eq!(gateway.submitted().len(), 1);
    assert_each_paid_once(&gateway, 1);
    running.stop().await;
}

/// A unit of work without a transaction that gets no response must not hand its connection on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_a_silent_scan_disturbs_no_other_work() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[]);
    let (proxy, running) = start(&world, &gateway, 3600).await;
    proxy.arm("/* due_attempts */", Cut::FrozenAfterServer);
    until_within("a scan is silent", WAIT_DEADLINE, || async {
        proxy.sprung()
    })
    .await;
    let failed = || {
        let failures = &running.metrics.work.transient_failures;
        failures.with_label_values(&["reconcile"]).get()
    };
    until_within("the scan gives up", WAIT_DEADLINE, || async {
        failed() > 0
    })
    .await;
    let filed = file_and_announce(&world, 1).await;
    refunded_within(&world, &filed, RESUMES).await;
    assert_eq!(failed(), 1, "the next scan had a good connection");
    assert_each_paid_once(&gateway, 1);
    running.stop().await;
}

/// The outcome is known and not written: the end is not clean, and the row is due for other processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p11_an_outcome_that_cannot_be_written_is_counted_as_left_open() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[]);
    let (proxy, url) = MysqlProxy::before(world.db.url()).await;
    let url = format!("--database-url={url}");
    let args = [url.as_str(), "--consumer-drain-secs=1"];
    let running = world.start(gateway.clone(), &args).await;
    proxy.arm_at_each("/* update_attempts */", Cut::FrozenAfterServer);
    file_and_announce(&world, 1).await;
    until_within("it is paid", WAIT_DEADLINE, || async {
        gateway.effects().len() == 1
    })
    .await;
    assert_eq!(running.stop().await, Drain::LeftOpen(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_ages_grow_while_the_gauges_cannot_be_read() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[]);
    world.file_days_ago(2, 1..=1, |_| true).await;
    let (proxy, running) = start(&world, &gateway, 0).await;
    let age = || running.metrics.rows.oldest[1].get();
    until_within("the review is read", WAIT_DEADLINE, || async {
        !age().is_zero()
    })
    .await;
    proxy.arm_at_each("/* read_gauges */", Cut::FrozenAfterServer);
    let before = age();
    for seconds in [10, 14, 18] {
        until_within("the age grows", WAIT_DEADLINE, || async {
            age() >= before + Duration::from_secs(seconds)
        })
        .await;
    }
    readyz_shows(&running, "over gauges_read_ago_secs").await;
    assert!(readyz(&running).contains("ok mysql_answer_ms"));
    let meanwhile = file_and_announce(&world, 2).await;
    refunded_within(&world, &meanwhile, RESUMES).await;
    let failures = &running.metrics.work.transient_failures;
    assert!(failures.with_label_values(&["census"]).get() > 0);

    proxy.disarm();
    readyz_shows(&running, "ok gauges_read_ago_secs").await;
    assert_each_paid_once(&gateway, 1);
    running.stop().await;
}

/// One return is at the gateway and one waits for its claim.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_everything_resumes_after_a_table_was_locked() {
    let world = World::new().await;
    let gateway = Fake::with_keys(&[Step::Hold]);
    let (_proxy, running) = start(&world, &gateway, 3600).await;
    let first = file_and_announce(&world, 1).await;
    until_within("it is at the gateway", WAIT_DEADLINE, || async {
        gateway.submitted().len() == 1
    })
    .await;
    let second = world.file(2).await;
    until_within("the gauges are read", WAIT_DEADLINE, || async {
        !oldest(&running).is_zero()
    })
    .await;

    let mut session = world.db.pool.acquire().await.expect("a connection");
    keep_when_silent(&mut session).await;
    session
        .execute("LOCK TABLES returns WRITE")
        .await
        .expect("the lock");
    gateway.let_go();
    world.announce(&second).await;
    let before = oldest(&running);
    until_within("the age grows", locked() * 2, || async {
        oldest(&running) >= before + locked()
    })
    .await;
    readyz_shows(&running, "over gauges_read_ago_secs").await;
    session.execute("UNLOCK TABLES").await.expect("the end");
    for filed in [&first, &second] {
        refunded_within(&world, filed, RESUMES).await;
    }
    readyz_shows(&running, "ok gauges_read_ago_secs").await;
    assert_each_paid_once(&gateway, 2);
    running.stop().await;
}
