//! Kafka is down for half a minute: filing goes on, the relay waits without parking a row or growing, and continues at once
//! when Kafka is up again. The log tells of the outage in a few lines.

use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::checks;
use e2e::program::Program;
use e2e::stack::{Server, control};
use e2e::system::{CUSTOMER, System};
use e2e::until;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::log_noise::OutageLog;
use crate::{EXCLUSIVE, FILERS, Filers, ORDERS_EACH, acknowledged_are_there, more_returns};

const OUTAGE: Duration = Duration::from_secs(30);
/// The bound after the broker serves again.
const FIRST_RECORD: Duration = Duration::from_secs(1);
/// For up to this time after its start a broker gives no id to a new producer.
const PRODUCER_ID: Duration = Duration::from_secs(1);
const BACKLOG: u32 = 2_000;
const DEADLINE: Duration = Duration::from_secs(60);
const PUBLISHED: &str = "outbox_published_rows_total";
const MOST_RESIDENT_MIB: u64 = 100;

#[tokio::test]
async fn p2_p3_p12_kafka_away_for_thirty_seconds_stops_nothing_and_loses_nothing()
-> anyhow::Result<()> {
    let _exclusive = EXCLUSIVE.lock().await;
    let system = System::create().await?;
    system
        .db
        .seed_orders(1, FILERS * ORDERS_EACH, CUSTOMER)
        .await;
    let api = system.start("returns-api").await?;
    let consumer = system.start("refund-consumer").await?;
    let client = system.customer.clone();
    let filers = Filers::start(&client, api.api_address()?);
    // First a backlog, then single events: the relay has a producer for each, and both must have their id.
    more_returns(&system, &api, BACKLOG).await?;
    let relay = system.start("outbox-relay").await?;
    until("the backlog is published", DEADLINE, async || {
        Ok(relay.metric(PUBLISHED).await? > u64::from(BACKLOG))
    })
    .await?;
    more_returns(&system, &api, 200).await?;
    let memory_before = resident_mib(&relay)?;
    let (log, log_of_api) = (OutageLog::of(&[&relay, &consumer]), OutageLog::of(&[&api]));
    control(Server::Kafka, "stop").await?;
    let stopped = Instant::now();
    let before = system.count("SELECT COUNT(*) FROM returns").await?;
    let slowest_health = stay_alive(&[&relay, &consumer], OUTAGE).await?;
    let during = system.count("SELECT COUNT(*) FROM returns").await? - before;
    assert!(during > 0, "filing goes on without Kafka");
    let memory = resident_mib(&relay)?;
    let waiting = system.count("SELECT COUNT(*) FROM outbox").await?;
    let first_record = first_record_after_return(&system, &relay).await?;
    let restarts = relay.metric("outbox_producer_restarts_total").await?;
    let away = stopped.elapsed();
    let filed = filers.finish().await;
    assert_eq!(filed.unavailable, 0, "every filing gets 201");
    let parked = system.count("SELECT COUNT(*) FROM outbox_parked").await?;
    assert_eq!(parked, 0, "an outage is no record's fault");
    system.settled(Duration::from_secs(180)).await?;
    let recovered = stopped.elapsed() - away;
    eprintln!(
        "Kafka away for {away:?}: {during} filed meanwhile, slowest {:?}; {waiting} rows waiting, relay at {memory} MiB \
         (before: {memory_before}), slowest health check {slowest_health:?}; first record {first_record:?} after its \
         return ({restarts} new producers), all refunded after {recovered:?}",
        filed.slowest
    );
    assert!(memory < MOST_RESIDENT_MIB, "P12: {memory} MiB");
    // Each of the two producers may have needed a new id.
    let without_id = u32::try_from(restarts.min(2))?;
    let bound = FIRST_RECORD + PRODUCER_ID * without_id;
    assert!(first_record < bound, "{first_record:?}, not {bound:?}");
    log.has_ended_in_few_lines().await?;
    log_of_api.has_no_outage()?;
    acknowledged_are_there(&system, &filed).await?;
    checks::everything(&system).await?;
    checks::straight_paths(&system).await?;
    drop(relay);
    drop(consumer);
    Ok(())
}

/// Checks the health of all programs repeatedly; returns the time of the slowest check.
async fn stay_alive(programs: &[&Program], outage: Duration) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    while begun.elapsed() < outage {
        for program in programs {
            let (address, asked) = (program.ops_address()?, Instant::now());
            // Three times, as an orchestrator does before it restarts a program.
            let alive = tokio::task::spawn_blocking(move || {
                (0..3).any(|_| shared::runtime::ops::healthcheck(address))
            });
            assert!(alive.await?, "healthy during the outage");
            slowest = slowest.max(asked.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(slowest)
}

/// Starts Kafka; returns the time from its first response to the first acknowledged record of the relay.
async fn first_record_after_return(system: &System, relay: &Program) -> anyhow::Result<Duration> {
    let before = relay.metric(PUBLISHED).await?;
    let (brokers, topic) = (system.brokers.clone(), system.topics[0].clone());
    let serves = tokio::spawn(async move {
        control(Server::Kafka, "start").await?;
        tokio::task::spawn_blocking(move || wait_until_it_serves(&brokers, &topic)).await?
    });
    until("a record is acknowledged", DEADLINE, async || {
        Ok(relay.metric(PUBLISHED).await? > before)
    })
    .await?;
    let first = Instant::now();
    Ok(first.saturating_duration_since(serves.await??))
}

/// When a new client gets the end of a partition, the partition has a leader again.
fn wait_until_it_serves(brokers: &str, topic: &str) -> anyhow::Result<Instant> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("reconnect.backoff.max.ms", "100")
        .set("retry.backoff.max.ms", "100")
        .create()?;
    let end = Instant::now() + DEADLINE;
    while let Err(error) = client.fetch_watermarks(topic, 0, DEADLINE) {
        // A partition without a leader is an error too.
        anyhow::ensure!(Instant::now() < end, "Kafka does not serve: {error}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Instant::now())
}

fn resident_mib(program: &Program) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("Linux says VmRSS")?.trim().parse::<u64>()? / 1024)
}
