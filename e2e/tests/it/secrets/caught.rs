//! The search finds a secret that is written on purpose.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::load::Writer;
use e2e::system::System;
use shared::domain::ids::OrderId;
use tokio::task::JoinError;

use super::{personal, secret};

const DEADLINE: Duration = Duration::from_secs(30);

fn panic_of(ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<String> {
    let panic = ended.err().context("it was not seen")?.into_panic();
    let text = panic.downcast_ref::<String>().context("a text")?;
    Ok(text.clone())
}

/// The log contains the request id that a trusted proxy chose. Here it is a secret.
#[tokio::test]
async fn p13_a_secret_in_a_log_fails_the_test_that_started_the_program() -> anyhow::Result<()> {
    let system = System::create().await?;
    for logged in [secret("leak"), personal("leak")] {
        let trusted = [("TRUSTED_PROXIES", "127.0.0.0/8")];
        let api = system.start_with("returns-api", &trusted).await?;
        let url = format!("http://{}/returns/1", api.api_address()?);
        let asked = reqwest::Client::new()
            .get(url)
            .header("x-request-id", &logged)
            .send();
        ensure!(asked.await?.status() == 401);
        let panic = panic_of(tokio::spawn(api.stop(DEADLINE)).await)?;
        ensure!(panic == "P13: returns-api has written leak", "{panic}");
    }
    Ok(())
}

/// Customers can read their own reason, so a secret in it is in a response.
#[tokio::test]
async fn p13_a_secret_in_a_response_fails_the_test_that_reads_it() -> anyhow::Result<()> {
    let system = System::create().await?;
    let options = system.db.pool.connect_options();
    let mut writer = Writer::connect(&options, system.topic_args()).await?;
    let id = writer.file(&system.db, &[OrderId(1)]).await?[0];
    let api = system.start("returns-api").await?;
    let address = api.api_address()?;
    for (reason, leaks) in [(personal("leak"), false), (secret("leak"), true)] {
        sqlx::query("UPDATE returns SET reason = ?")
            .bind(&reason)
            .execute(&system.db.pool)
            .await?;
        let customer = system.customer.clone();
        let asked = tokio::spawn(async move {
            let answer = customer.get(address, &format!("/returns/{id}")).await?;
            ensure!(answer.body["reason"] == reason.as_str(), "{answer:?}");
            Ok(())
        });
        match asked.await {
            Ok(read) if !leaks => read?,
            ended => ensure!(panic_of(ended)? == "P13: a response of the api contains leak"),
        }
    }
    api.stop(DEADLINE).await
}
