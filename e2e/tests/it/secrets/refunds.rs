//! From the filing to the refund, through all programs.

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

use super::fixture::{Fixture, token};
use super::{pages_hold_none, personal};

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn p13_no_program_on_the_way_to_a_refund_tells_a_secret() -> anyhow::Result<()> {
    let mut fixture = Fixture::create().await?;
    let gateway = Provider::start(&mut fixture.system, &["--hang-ms=2000"]).await?;
    let system = &fixture.system;
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
    decide(&fixture, returns[1]).await?;
    ended(system, "refunded", 2).await?;
    cut_off(&fixture, api.api_address()?, gateway).await?;
    pages_hold_none(&[&api, &relay, &consumer]).await?;
    for program in [api, relay, consumer] {
        program.stop(DEADLINE).await?;
    }
    Ok(())
}

async fn ended(system: &System, status: &str, count: i64) -> anyhow::Result<()> {
    until("the returns have ended", DEADLINE, async || {
        let there: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM returns WHERE status = ?")
            .bind(status)
            .fetch_one(&system.db.pool)
            .await?;
        Ok(there == count)
    })
    .await
}

/// Malformed records with personal data in every part.
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
        let sent = producer.send(record, DEADLINE).await;
        sent.map_err(|(error, _)| error)?;
    }
    let all = i64::try_from(payloads.len())?;
    until("each is a dead letter", DEADLINE, async || {
        Ok(system.count("SELECT COUNT(*) FROM dead_letters").await? == all)
    })
    .await
}

/// An operator lists, is refused, and retries the declined refund.
async fn decide(fixture: &Fixture, id: ReturnId) -> anyhow::Result<()> {
    let (system, id) = (&fixture.system, id.to_string());
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

/// The provider stops, then MySQL, while the programs work.
async fn cut_off(fixture: &Fixture, api: SocketAddr, gateway: Provider) -> anyhow::Result<()> {
    let system = &fixture.system;
    gateway.kill().await?;
    system.db.seed_orders(3, 1, CUSTOMER).await;
    let answer = system.customer.file(api, 3, None).await?;
    ensure!(answer.status == 201, "{answer:?}");
    until("the provider could not be reached", DEADLINE, async || {
        let sql = "SELECT COUNT(*) FROM refunds WHERE last_error = 'connect_failed'";
        Ok(system.count(sql).await? == 1)
    })
    .await?;
    fixture.mysql.go_away();
    let path = format!("/returns/{}", answer.return_id().unwrap_or_default());
    let unavailable = system.customer.get(api, &path).await?;
    ensure!(unavailable.status == 503, "{unavailable:?}");
    fixture.mysql.come_back();
    until("MySQL is back", DEADLINE, async || {
        Ok(system.customer.get(api, &path).await?.status == 200)
    })
    .await
}
