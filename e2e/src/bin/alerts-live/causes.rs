//! Each trouble, how it is made and how it ends.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use e2e::cluster::Cluster;
use e2e::operator::as_admin;
use e2e::program::{Program, run};
use e2e::provider::{self, Provider};
use e2e::system::System;
use e2e::until;
use futures_util::future::try_join_all;
use serde_json::Value;
use shared::domain::ids::ReturnId;
use shared::test_support::TestDb;
use shared::test_support::mysql_proxy::MysqlProxy;
use sqlx::Executor;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::watched::{API, CONSUMER, RELAY, Row, Watched};

const ALL: [&str; 3] = [API, RELAY, CONSUMER];
/// Until a state becomes a row, or a row a state.
const DEADLINE: Duration = Duration::from_secs(120);
/// Most alerts end with their cause.
const AT_ONCE: Duration = Duration::from_secs(90);
const MINUTE: Duration = Duration::from_secs(60);
/// Who decides.
const BY: [&str; 4] = ["--by", "j.doe", "--reason", "a test of the alerts"];

type Rows = anyhow::Result<Vec<Row>>;

/// Short times for calls and look-ups, so that a refund reaches its state soon.
const QUICK: [(&str, &str); 4] = [
    ("CALL_DEADLINE_MS", "2000"),
    ("GATEWAY_CALL_TIMEOUT_MS", "500"),
    ("LOOKUP_BACKOFF_MS", "100"),
    ("LOOKUP_BACKOFF_MAX_MS", "1000"),
];

pub(crate) async fn programs_are_killed() -> Rows {
    let watched = Watched::start(System::create().await?).await?;
    let api = watched.program(API).await?;
    let relay = watched.program(RELAY).await?;
    let consumer = watched.program(CONSUMER).await?;
    watched.is_scraped(&ALL).await?;
    let mut rows = Vec::new();
    let mut again = Vec::new();
    for (program, cause, alert) in [
        (relay, "the only relay is killed", "OutboxRelayGone"),
        (
            consumer,
            "the only consumer is killed",
            "RefundConsumerGone",
        ),
        (api, "the only api is killed", "ReturnsApiGone"),
    ] {
        let gone = watched.cause(cause, alert).await?;
        let down = watched.cause(cause, "InstanceDown").await?;
        let name = program.name();
        program.kill().await?;
        let (gone, down) = tokio::try_join!(gone.fires(), down.fires())?;
        again.push(watched.program(name).await?);
        let (gone, down) = tokio::try_join!(gone.ends(AT_ONCE), down.ends(AT_ONCE))?;
        rows.extend([gone, down]);
    }
    Ok(rows)
}

pub(crate) async fn kafka_is_away() -> Rows {
    let mut cluster = Cluster::start(&[]).await?;
    let brokers = cluster.brokers.clone();
    let db = TestDb::create().await;
    let system = System::create_with(db, &[("KAFKA_BROKERS", &brokers)]).await?;
    let watched = Watched::start(system).await?;
    let api = watched.program(API).await?;
    let _relay = watched.program(RELAY).await?;
    let _consumer = watched.program(CONSUMER).await?;
    watched.is_scraped(&ALL).await?;
    watched.file(&api, 1..=5).await?;
    watched.system.settled(DEADLINE).await?;
    let cause = "all brokers are killed, a return is filed";
    let away = watched.cause(cause, "KafkaUnreachable").await?;
    let old = watched.cause(cause, "OutboxTooOld").await?;
    for broker in 0..3 {
        cluster.kill(broker).await?;
    }
    watched.file(&api, 6..=6).await?;
    let away = away.fires().await?;
    let old = old.after(MINUTE).fires().await?;
    cluster.start_all().await?;
    let (away, old) = tokio::try_join!(away.ends(AT_ONCE), old.ends(AT_ONCE))?;
    Ok(vec![away, old])
}

pub(crate) async fn mysql_is_silent() -> Rows {
    let mut system = System::create().await?;
    let (proxy, url) = MysqlProxy::before(system.db.url()).await;
    system.env.insert("DATABASE_URL".to_owned(), url);
    let watched = Watched::start(system).await?;
    let api = watched.program(API).await?;
    let _relay = watched.program(RELAY).await?;
    let _consumer = watched.program(CONSUMER).await?;
    watched.is_scraped(&ALL).await?;
    let cause = "MySQL is silent";
    let failing = watched.cause(cause, "MysqlFailing").await?;
    let stale = watched.cause(cause, "RevocationsStale").await?;
    let errors = watched
        .cause("MySQL is silent, returns are filed", "ApiErrorsFastBurn")
        .await?;
    proxy.hang();
    let filing = file_again_and_again(&watched, &api)?;
    let (failing, stale, errors) =
        tokio::try_join!(failing.fires(), stale.fires(), errors.fires())?;
    drop(filing);
    proxy.come_back();
    // The error ratio is that of five minutes.
    let (failing, stale, errors) = tokio::try_join!(
        failing.ends(AT_ONCE),
        stale.ends(AT_ONCE),
        errors.ends(7 * MINUTE)
    )?;
    Ok(vec![failing, stale, errors])
}

/// Clients that file until they are dropped. One burst would not do: a counter that begins with the burst has not risen.
fn file_again_and_again(watched: &Watched, api: &Program) -> anyhow::Result<JoinSet<()>> {
    let mut clients = JoinSet::new();
    for order in 1..=5 {
        let (client, address) = (watched.system.customer.clone(), api.api_address()?);
        clients.spawn(async move {
            let mut pace = interval(Duration::from_secs(1));
            loop {
                pace.tick().await;
                // Mostly 503, which is what is wanted.
                let _ = client.file(address, order, None).await;
            }
        });
    }
    Ok(clients)
}

/// A poison record, a call with an unknown outcome, and a refund that nobody can settle.
pub(crate) async fn refunds_go_wrong() -> Rows {
    // No scan takes a return before its call is prepared.
    let settings = [&QUICK[..], &[("INITIATED_GRACE_SECS", "3600")]].concat();
    let mut system = System::create_with(TestDb::create().await, &settings).await?;
    let provider = Provider::start(&mut system, &["--no-idempotency-keys"]).await?;
    let watched = Watched::start(system).await?;
    let api = watched.program(API).await?;
    let _consumer = watched.program(CONSUMER).await?;
    watched.is_scraped(&[API, CONSUMER]).await?;
    let filed = watched.file(&api, 1..=2).await?;
    let [unknown, parked] = [filed[0], filed[1]].map(ReturnId);
    let system = &watched.system;
    for (id, fault) in [(unknown, "server-error-after"), (parked, "server-error")] {
        let key = provider::key(system, id, 1).await?;
        provider.script(&key, &[fault], &[]).await?;
    }
    let poison = watched
        .cause("a record that nobody can read", "DeadLetter")
        .await?;
    system.poison(0).await?;
    let unclear = watched
        .cause("the provider pays and answers 500", "RefundOutcomeUnknown")
        .await?;
    let _relay = watched.program(RELAY).await?;
    let waits = "SELECT COUNT(*) FROM refunds WHERE state = 'parked'";
    until("a refund is parked", DEADLINE, async || {
        Ok(system.count(waits).await? == 1)
    })
    .await?;
    let person = watched
        .cause("nobody knows whether a refund was paid", "RefundParked")
        .await?;
    let (poison, unclear, person) =
        tokio::try_join!(poison.fires(), unclear.fires(), person.fires())?;
    let discard = [&["dead-letters", "discard", "1"][..], &BY].concat();
    run("returnsctl", &discard, &system.env).await?;
    mark_not_paid(system, parked).await?;
    let rows = tokio::try_join!(
        poison.ends(AT_ONCE),
        unclear.ends(11 * MINUTE),
        person.ends(AT_ONCE)
    )?;
    Ok(vec![rows.0, rows.1, rows.2])
}

/// One person requests it, another confirms.
async fn mark_not_paid(system: &System, id: ReturnId) -> anyhow::Result<()> {
    let id = id.to_string();
    let evidence = ["--attempt", "1", "--evidence", "their list", "--json"];
    let request = [&["refunds", "request-mark-not-paid", &id][..], &evidence].concat();
    let printed = run("returnsctl", &request, &as_admin(&system.env, "7").await?).await?;
    let printed: Value = serde_json::from_str(&printed)?;
    let request = printed["request"].to_string();
    let confirm = [
        "refunds",
        "confirm-mark-not-paid",
        &id,
        "--request",
        &request,
    ];
    run("returnsctl", &confirm, &as_admin(&system.env, "8").await?).await?;
    Ok(())
}

pub(crate) async fn the_provider_is_away() -> Rows {
    let mut system = System::create_with(TestDb::create().await, &QUICK).await?;
    let provider = Provider::start(&mut system, &[]).await?;
    let watched = Watched::start(system).await?;
    let api = watched.program(API).await?;
    let _relay = watched.program(RELAY).await?;
    let _consumer = watched.program(CONSUMER).await?;
    watched.is_scraped(&ALL).await?;
    watched.file(&api, 1..=5).await?;
    watched.system.settled(DEADLINE).await?;
    let away = watched
        .cause(
            "the provider answers nothing, returns are filed",
            "ProviderAway",
        )
        .await?;
    provider.freeze()?;
    watched.file(&api, 6..=10).await?;
    let away = away.fires().await?;
    provider.thaw()?;
    watched.file(&api, 11..=15).await?;
    Ok(vec![away.ends(AT_ONCE).await?])
}

/// Events wait, because a person has paused all shards.
pub(crate) async fn the_outbox_fills() -> Rows {
    let watched = Watched::start(System::create().await?).await?;
    let api = watched
        .program_with(API, &[("BACKLOG_MAX_ROWS", "100")])
        .await?;
    let _relay = watched.program(RELAY).await?;
    watched.is_scraped(&[API, RELAY]).await?;
    shards(&watched.system, "pause").await?;
    let paused = watched
        .cause("all shards are paused", "ShardsPaused")
        .await?;
    let half = watched
        .cause("60 of 100 rows wait", "OutboxHalfFull")
        .await?;
    let old = watched
        .cause("the oldest event waits for 60 s", "OutboxTooOld")
        .await?;
    watched.file(&api, 1..=60).await?;
    let half = half.fires().await?;
    let almost = watched
        .cause("85 of 100 rows wait", "OutboxAlmostFull")
        .await?;
    watched.file(&api, 61..=85).await?;
    let (paused, old, almost) =
        tokio::try_join!(paused.fires(), old.after(MINUTE).fires(), almost.fires())?;
    let full = watched.cause("the gate closes", "FilingsRefused").await?;
    watched.file(&api, 86..=105).await?;
    let full = full.fires().await?;
    shards(&watched.system, "resume").await?;
    let fired = [paused, half, almost, old, full];
    try_join_all(fired.map(|fired| fired.ends(AT_ONCE))).await
}

async fn shards(system: &System, verb: &str) -> anyhow::Result<()> {
    for shard in 0..16 {
        let shard = shard.to_string();
        let args = [&["outbox", verb, "--shard", &shard][..], &BY].concat();
        run("returnsctl", &args, &system.env).await?;
    }
    Ok(())
}

pub(crate) async fn keys_and_topics_are_wrong() -> Rows {
    let watched = Watched::start(System::create().await?).await?;
    let api = watched.program(API).await?;
    parked_before(&watched, &api).await?;
    let parked = watched
        .cause("Kafka refuses an event", "EventParked")
        .await?;
    let _relay = watched.program(RELAY).await?;
    watched.is_scraped(&[API, RELAY]).await?;
    let (mut rows, parked) = tokio::try_join!(keys(&watched), parked.fires())?;
    let mend =
        "UPDATE outbox_parked AS p JOIN mended AS m USING (shard, id) SET p.payload = m.payload";
    watched.system.db.pool.execute(mend).await?;
    let redrive = [&["outbox", "redrive", "--all"][..], &BY].concat();
    run("returnsctl", &redrive, &watched.system.env).await?;
    rows.push(parked.ends(AT_ONCE).await?);

    let mistyped = format!("{}.mistyped", watched.system.topics[0]);
    let other = watched
        .system
        .start_with(API, &[("TOPIC_RETURNS", &mistyped)])
        .await?;
    let topic = watched
        .cause("a topic does not exist", "TopicTroubled")
        .await?;
    watched.file(&other, 2..=2).await?;
    let topic = topic.fires().await?;
    let mut env = watched.system.env.clone();
    env.insert("TOPIC_RETURNS".to_owned(), mistyped);
    run("returnsctl", &["topics"], &env).await?;
    rows.push(topic.ends(AT_ONCE).await?);
    Ok(rows)
}

/// An event that is larger than its topic allows.
async fn parked_before(watched: &Watched, api: &Program) -> anyhow::Result<()> {
    watched.file(api, 1..=1).await?;
    let pool = &watched.system.db.pool;
    pool.execute("CREATE TABLE mended SELECT * FROM outbox")
        .await?;
    pool.execute("UPDATE outbox SET payload = REPEAT('x', 3000000)")
        .await?;
    Ok(())
}

/// A key file that is no JSON, and one without a key.
async fn keys(watched: &Watched) -> Rows {
    let file = watched.system.env.get("AUTH_KEYS_FILE").context("a file")?;
    let good = fs::read(file)?;
    let unreadable = watched
        .cause("the key file is no JSON", "AuthKeysUnreadable")
        .await?;
    fs::write(file, "not json")?;
    let unreadable = unreadable.fires().await?;
    fs::write(file, &good)?;
    let none = async {
        let none = watched
            .cause("the key file has no key", "NoAuthKeys")
            .await?;
        fs::write(file, "{\"keys\": []}")?;
        let none = none.fires().await?;
        fs::write(file, &good)?;
        none.ends(AT_ONCE).await
    };
    let (unreadable, none) = tokio::try_join!(unreadable.ends(AT_ONCE), none)?;
    Ok(vec![unreadable, none])
}
