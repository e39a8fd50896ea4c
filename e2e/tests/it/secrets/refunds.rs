//! From a filing to its refund, through every program.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use e2e::program::run;
use e2e::provider::{self, Provider};
use e2e::system::{CUSTOMER, System};
use e2e::until;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use shared::domain::ids::ReturnId;

use super::stage::{Stage, token};
use super::{pages_hold_none, personal};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn p13_no_program_on_the_way_to_a_refund_tells_a_secret() -> anyhow::Result<()> {
    let mut stage = Stage::set().await?;
    let gateway = Provider::start(&mut stage.system, &["--hang-ms=2000"]).await?;
    let system = &stage.system;
    system.db.seed_orders(1, 2, CUSTOMER).await;
    let api = system.start("returns-api").await?;
    let mut returns = Vec::new();
    for order in 1..=2 {
        let answer = system
            .customer
            .file(api.api_address()?, order, None)
            .await?;
        returns.extend(answer.return_id().map(ReturnId));
    }
    ensure!(returns.len() == 2, "{returns:?}");
    let declined = provider::key(system, returns[1], 1).await?;
    gateway.script(&declined, &["decline"], &[]).await?;
    let relay = system.start("outbox-relay").await?;
    let consumer = system.start("refund-consumer").await?;
    ended(system, "refunded", 1).await?;
    ended(system, "refund_failed", 1).await?;
    poison(system).await?;
    decide(&stage, returns[1]).await?;
    ended(system, "refunded", 2).await?;
    cut_off(&stage, api.api_address()?, gateway).await?;
    pages_hold_none(&[&api, &relay, &consumer]).await?;
    for program in [api, relay, consumer] {
        program.stop(PATIENCE).await?;
    }
    Ok(())
}

async fn ended(system: &System, status: &str, count: i64) -> anyhow::Result<()> {
    until("the returns have ended", PATIENCE, async || {
        let there: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM returns WHERE status = ?")
            .bind(status)
            .fetch_one(&system.db.pool)
            .await?;
        Ok(there == count)
    })
    .await
}

/// Records that the consumer cannot use, with personal data everywhere.
async fn poison(system: &System) -> anyhow::Result<()> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &system.brokers)
        .create()?;
    let word = personal("record");
    let payloads = [
        word.clone(),
        format!(r#"{{"specversion": "{word}"}}"#),
        format!(r#"{{"specversion": "1.0", "type": "{word}", "subject": "{word}"}}"#),
        format!(r#"{{"{word}": 1, "{word}": 2}}"#),
    ];
    for payload in &payloads {
        let headers = ["content-type", "type", "seq", "traceparent", &word].map(|key| Header {
            key,
            value: Some(&word),
        });
        let headers = headers
            .into_iter()
            .fold(OwnedHeaders::new(), OwnedHeaders::insert);
        let record = FutureRecord::to(&system.topics[0])
            .key(&word)
            .payload(payload)
            .headers(headers);
        let sent = producer.send(record, PATIENCE).await;
        sent.map_err(|(error, _)| error)?;
    }
    let all = i64::try_from(payloads.len())?;
    until("each is a dead letter", PATIENCE, async || {
        Ok(system.count("SELECT COUNT(*) FROM dead_letters").await? == all)
    })
    .await
}

/// A person looks, is refused, and has the declined refund tried again.
async fn decide(stage: &Stage, id: ReturnId) -> anyhow::Result<()> {
    let (system, id) = (&stage.system, id.to_string());
    for args in [
        &["refunds", "list"][..],
        &["refunds", "show", &id],
        &["refunds", "show", &id, "--json"],
        &["dead-letters", "list"],
        &["dead-letters", "list", "--json"],
        &["dead-letters", "show", "1"],
    ] {
        run("returnsctl", args, &system.env).await?;
    }
    let retry = [
        "refunds",
        "retry",
        &id,
        "--attempt",
        "1",
        "--reason",
        "the account is open again",
    ];
    let mut env = system.env.clone();
    for bad in [
        super::canary("operator"),
        token(system, "biscuit", "auditor").await?,
    ] {
        env.insert("OPERATOR_TOKEN".to_owned(), bad);
        ensure!(run("returnsctl", &retry, &env).await.is_err());
    }
    let admin = token(system, "biscuit", "admin").await?;
    env.insert("OPERATOR_TOKEN".to_owned(), admin);
    run("returnsctl", &retry, &env).await?;
    Ok(())
}

/// The provider is gone, then MySQL, in the middle of the work.
async fn cut_off(stage: &Stage, api: SocketAddr, gateway: Provider) -> anyhow::Result<()> {
    let system = &stage.system;
    gateway.kill().await?;
    system.db.seed_orders(3, 1, CUSTOMER).await;
    let answer = system.customer.file(api, 3, None).await?;
    ensure!(answer.status == 201, "{answer:?}");
    until("the provider could not be reached", PATIENCE, async || {
        let sql = "SELECT COUNT(*) FROM refunds WHERE last_error = 'connect_failed'";
        Ok(system.count(sql).await? == 1)
    })
    .await?;
    stage.mysql.go_away();
    let path = format!("/returns/{}", answer.return_id().unwrap_or_default());
    let unavailable = system.customer.get(api, &path).await?;
    ensure!(unavailable.status == 503, "{unavailable:?}");
    stage.mysql.come_back();
    until("MySQL is back", PATIENCE, async || {
        Ok(system.customer.get(api, &path).await?.status == 200)
    })
    .await
}
