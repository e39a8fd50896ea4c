//! Three brokers: two of them frozen, producer ids that expire while the relay is idle, and partitions without a leader.

use std::time::{Duration, Instant};

use e2e::cluster::Cluster;
use e2e::load::Writer;
use e2e::program::Program;
use e2e::system::System;
use e2e::{topic_check, until};
use shared::domain::ids::{OrderId, ReturnId};
use shared::test_support::{TestDb, long_form};

use crate::EXCLUSIVE;

const DEADLINE: Duration = Duration::from_secs(180);
const PUBLISHED: &str = "outbox_published_rows_total";
const RESTARTS: &str = "outbox_producer_restarts_total";

/// `BROKERS_FROZEN_SECS=45` is the long form, with the lifetime of producer ids that a broker would really have.
struct Times {
    frozen: Duration,
    /// The broker forgets a producer after this time without a record from it.
    expiration: Duration,
    idle: Duration,
}

impl Times {
    fn read() -> Self {
        let frozen_secs = long_form("BROKERS_FROZEN_SECS", 12);
        let expiration_secs = if frozen_secs < 45 { 4 } else { 60 };
        Self {
            frozen: Duration::from_secs(frozen_secs),
            expiration: Duration::from_secs(expiration_secs),
            idle: Duration::from_secs(expiration_secs + 4 + expiration_secs / 6),
        }
    }
}

struct Load {
    system: System,
    writer: Writer,
    relay: Program,
}

impl Load {
    async fn start(cluster: &Cluster, copies: &str) -> anyhow::Result<Self> {
        let more = [
            ("KAFKA_BROKERS", cluster.brokers.as_str()),
            ("TOPIC_REPLICATION", copies),
            ("TOPIC_PARTITIONS", "6"),
        ];
        let system = System::create_with(TestDb::create().await, &more).await?;
        let options = system.db.pool.connect_options();
        let writer = Writer::connect(&options, system.topic_args()).await?;
        let relay = system.start("outbox-relay").await?;
        Ok(Self {
            system,
            writer,
            relay,
        })
    }

    /// MySQL ends sessions that are idle.
    async fn reconnect(&mut self) -> anyhow::Result<()> {
        let options = self.system.db.pool.connect_options();
        self.writer = Writer::connect(&options, self.system.topic_args()).await?;
        Ok(())
    }

    async fn file(&mut self, orders: std::ops::Range<i64>) -> anyhow::Result<Vec<ReturnId>> {
        let orders: Vec<OrderId> = orders.map(OrderId).collect();
        self.writer.file(&self.system.db, &orders).await
    }

    async fn drained(&self) -> anyhow::Result<()> {
        until("the outbox is empty", DEADLINE, async || {
            Ok(self.system.count("SELECT COUNT(*) FROM outbox").await? == 0)
        })
        .await
    }

    /// Every event is there, in order, and none is parked.
    async fn checked(&self, what: &str) -> anyhow::Result<()> {
        self.drained().await?;
        let parked = "SELECT COUNT(*) FROM outbox_parked";
        assert_eq!(self.system.count(parked).await?, 0, "no record is to blame");
        let topics = topic_check::check(&self.system).await?;
        let restarts = self.relay.metric(RESTARTS).await?;
        eprintln!("{what}: {topics:?}, {restarts} new producers so far");
        assert!(restarts <= 8, "no restart loop: {restarts} after {what}");
        Ok(())
    }
}

#[tokio::test]
async fn p2_p3_p4_two_of_three_brokers_frozen_and_expired_producer_ids_lose_and_reorder_nothing()
-> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let times = Times::read();
    let expiration_ms = times.expiration.as_millis().to_string();
    let expiration = [
        ("producer.id.expiration.ms", expiration_ms.as_str()),
        ("producer.id.expiration.check.interval.ms", "1000"),
        ("default.replication.factor", "3"),
    ];
    let cluster = Cluster::start(&expiration).await?;
    let mut load = Load::start(&cluster, "3").await?;
    let returns = load.file(1..1_001).await?;
    load.writer.change(&returns, 1).await?;
    load.checked("before").await?;

    (1..=2).try_for_each(|broker| cluster.freeze(broker))?;
    let since = Instant::now();
    let mut order = 10_000;
    while since.elapsed() < times.frozen {
        let more = load.file(order..order + 50).await?;
        load.writer.change(&more, 2).await?;
        order += 50;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    (1..=2).try_for_each(|broker| cluster.thaw(broker))?;
    let later = load.file(100_000..100_200).await?;
    load.writer.change(&later, 2).await?;
    load.checked("two of three brokers frozen").await?;

    for pause in 1..=2 {
        tokio::time::sleep(times.idle).await;
        load.reconnect().await?;
        load.writer.change(&returns, 1).await?;
        load.checked(&format!("idle pause {pause}")).await?;
    }
    Ok(())
}

/// Each topic has one copy of each partition, two of its six on the broker that is killed.
#[tokio::test]
async fn p3_p4_partitions_without_a_leader_hold_up_no_other_and_continue_in_order()
-> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let mut cluster = Cluster::start(&[]).await?;
    let mut load = Load::start(&cluster, "1").await?;
    load.file(1..101).await?;
    load.checked("before").await?;
    cluster.kill(2).await?;
    let before = load.relay.metric(PUBLISHED).await?;
    // More rows of the two partitions than may be in flight.
    let returns = load.file(1_000..7_000).await?;
    for group in returns.chunks(1_000) {
        load.writer.change(group, 4).await?;
    }
    flows(&load, before + 9_000).await?;
    let before = load.relay.metric(PUBLISHED).await?;
    let more = load.file(100_000..100_600).await?;
    load.writer.change(&more, 2).await?;
    flows(&load, before + 500).await?;
    cluster.start_again(2).await?;
    load.checked("partitions without a leader").await
}

/// At least a third of the orders have their partitions elsewhere.
async fn flows(load: &Load, published: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    until(
        "events of other partitions are published",
        DEADLINE,
        async || Ok(load.relay.metric(PUBLISHED).await? >= published),
    )
    .await?;
    eprintln!(
        "{published} events are published after {:?}",
        begun.elapsed()
    );
    Ok(())
}
