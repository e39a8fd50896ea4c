//! Tests that kill servers under load, or measure times. They need servers that `deploy/local/stack` started, with
//! MySQL's default durability, and run one after the other.

mod kafka_away;
mod log_noise;
mod mysql_ipv6;
mod mysql_read_only;
mod mysql_refuses;
mod mysql_statements;
mod mysql_switchover;
mod refund_time;
mod server_defaults;
mod three_brokers;
mod traces_kafka_away;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::client::Client;
use e2e::program::Program;
use e2e::stack::{Server, control};
use e2e::system::{CUSTOMER, System};
use e2e::{topic_check, until};
use tokio::sync::{Mutex, watch};

/// Held by the test that is running.
static EXCLUSIVE: Mutex<()> = Mutex::const_new(());

/// Clients that file one order after the other on the current api, and remember every 201.
struct Filers {
    api: watch::Sender<SocketAddr>,
    stop: Arc<AtomicBool>,
    tasks: tokio::task::JoinSet<Filed>,
}

#[derive(Default)]
struct Filed {
    /// The id of every return that got 201.
    acknowledged: HashSet<i64>,
    /// Requests without a response, or with 503.
    unavailable: u32,
    slowest: Duration,
}

const FILERS: i64 = 16;
const ORDERS_EACH: i64 = 20_000;

impl Filers {
    fn start(client: &Client, api: SocketAddr) -> Self {
        Self::start_with(client, api, ORDERS_EACH)
    }

    /// With fewer orders, for a short run.
    fn start_with(client: &Client, api: SocketAddr, orders_each: i64) -> Self {
        Self::start_at(client, api, 1, orders_each)
    }

    /// From this order on.
    fn start_at(client: &Client, api: SocketAddr, first_order: i64, orders_each: i64) -> Self {
        let (api, stop) = (watch::Sender::new(api), Arc::new(AtomicBool::new(false)));
        let mut tasks = tokio::task::JoinSet::new();
        for filer in 0..FILERS {
            let first = first_order + filer * orders_each;
            tasks.spawn(file_until(
                client.clone(),
                api.subscribe(),
                Arc::clone(&stop),
                first..first + orders_each,
            ));
        }
        Self { api, stop, tasks }
    }

    fn now_at(&self, api: SocketAddr) {
        self.api.send_replace(api);
    }

    async fn finish(self) -> Filed {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Filed::default();
        for part in self.tasks.join_all().await {
            all.acknowledged.extend(part.acknowledged);
            all.unavailable += part.unavailable;
            all.slowest = all.slowest.max(part.slowest);
        }
        all
    }
}

/// Repeats each filing until it gets 201, with one idempotency key per order, so that a retry finds a return that exists.
async fn file_until(
    client: Client,
    mut api: watch::Receiver<SocketAddr>,
    stop: Arc<AtomicBool>,
    orders: Range<i64>,
) -> Filed {
    let mut filed = Filed::default();
    let mut order = orders.start;
    while !stop.load(Ordering::Relaxed) && order < orders.end {
        let (address, sent) = (*api.borrow_and_update(), Instant::now());
        let key = format!("order-{order}");
        match client.file(address, order, Some(&key)).await {
            Ok(answer) if answer.status == 503 => {
                assert!(answer.retry_after.is_some(), "{answer:?}");
                filed.unavailable += 1;
                // A client of ours waits for a second; this one is in a hurry.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(answer) => {
                // Also after an unknown outcome: no 409 and no second return.
                let id = answer.return_id().unwrap_or_else(|| panic!("{answer:?}"));
                filed.slowest = filed.slowest.max(sent.elapsed());
                assert!(filed.acknowledged.insert(id), "an id twice");
                order += 1;
            }
            Err(_) => {
                filed.unavailable += 1;
                // Wait for another api. The timeout covers an api that serves again at the same address.
                let _ = tokio::time::timeout(Duration::from_millis(200), api.changed()).await;
            }
        }
    }
    filed
}

/// A server that was killed first recovers, which takes long on a busy disk.
const DEADLINE: Duration = Duration::from_secs(180);

/// Waits for `more` new returns, so that each kill happens under load.
async fn more_returns(system: &System, api: &Program, more: u32) -> anyhow::Result<()> {
    let rows = "SELECT COUNT(*) FROM returns";
    let before = system.count(rows).await?;
    until("more returns", DEADLINE, async || {
        Ok(system
            .count(rows)
            .await
            .is_ok_and(|now| now >= before + i64::from(more)))
    })
    .await
    .with_context(|| api.last_lines())
}

/// P1: every 201 has its row and first event.
async fn acknowledged_are_there(system: &System, filed: &Filed) -> anyhow::Result<()> {
    let rows: Vec<i64> = sqlx::query_scalar(
        "SELECT r.id FROM returns r JOIN return_events e ON e.return_id = r.id AND e.seq = 1",
    )
    .fetch_all(&system.db.pool)
    .await?;
    let rows: HashSet<i64> = rows.into_iter().collect();
    let lost: Vec<&i64> = filed.acknowledged.difference(&rows).collect();
    anyhow::ensure!(lost.is_empty(), "P1: got 201 and are lost: {lost:?}");
    Ok(())
}

#[tokio::test]
async fn p1_every_201_survives_kill_9_of_api_and_mysqld() -> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let system = System::create().await?;
    system
        .db
        .seed_orders(1, FILERS * ORDERS_EACH, CUSTOMER)
        .await;
    let mut api = system.start("returns-api").await?;
    let relay = system.start("outbox-relay").await?;
    let client = system.customer.clone();
    let filers = Filers::start(&client, api.api_address()?);
    for round in 1..=20 {
        more_returns(&system, &api, 200).await?;
        if round % 4 == 0 {
            // Under load, so that connections of the api break in the middle of a statement.
            control(Server::Mysql, "kill").await?;
            control(Server::Mysql, "start").await?;
            more_returns(&system, &api, 200).await?;
        }
        api.kill().await?;
        api = system.start("returns-api").await?;
        filers.now_at(api.api_address()?);
    }
    more_returns(&system, &api, 200).await?;
    let filed = filers.finish().await;
    acknowledged_are_there(&system, &filed).await?;
    let twice = "SELECT COUNT(*) - COUNT(DISTINCT order_id) FROM returns";
    assert_eq!(system.count(twice).await?, 0, "P9: an order filed twice");
    until("the outbox is empty", Duration::from_secs(60), async || {
        Ok(system.count("SELECT COUNT(*) FROM outbox").await? == 0)
    })
    .await?;
    let topics = topic_check::check(&system).await?;
    eprintln!(
        "20 kills of the api, 5 of mysqld: {} acknowledged, {} unavailable, {} records",
        filed.acknowledged.len(),
        filed.unavailable,
        topics.events + topics.repeats.count()
    );
    relay.stop(Duration::from_secs(20)).await?;
    api.stop(Duration::from_secs(20)).await
}
