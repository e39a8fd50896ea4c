//! `returnsctl dev-gateway` as a process. Its ledger shows double refunds.

use std::path::Path;

use anyhow::ensure;
use reqwest::Client;
use serde_json::json;
use shared::domain::ids::ReturnId;

use crate::program::Program;
use crate::system::System;

/// The payment provider of a system.
#[derive(Debug)]
pub struct Provider {
    program: Program,
    name: String,
    url: String,
    has_keys: bool,
    client: Client,
}

impl Provider {
    /// Starts it with the ledger of the system. Consumers that start later call it.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(system: &mut System, flags: &[&str]) -> anyhow::Result<Self> {
        let ledger = system.ledger.clone();
        Self::start_account(system, "dev", &ledger, flags).await
    }

    /// As [`Provider::start`], for the account `name` with a ledger of its own.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_account(
        system: &mut System,
        name: &str,
        ledger: &Path,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let program = program(ledger, flags, system).await?;
        let provider = Self {
            url: format!("http://{}", program.gateway_address()?),
            name: name.to_owned(),
            has_keys: !flags.contains(&"--no-idempotency-keys"),
            program,
            client: Client::new(),
        };
        provider.be_called(system);
        Ok(provider)
    }

    /// Consumers that start later call it.
    pub fn be_called(&self, system: &mut System) {
        for (name, value) in [
            ("REFUND_GATEWAY", "http".to_owned()),
            ("GATEWAY_NAME", self.name.clone()),
            ("GATEWAY_URL", self.url.clone()),
            ("GATEWAY_IDEMPOTENCY_KEYS", self.has_keys.to_string()),
        ] {
            system.env.insert(name.to_owned(), value);
        }
    }

    /// Sets the faults of the next calls about an attempt.
    ///
    /// # Errors
    /// It does not respond, or knows no such fault.
    pub async fn script(&self, key: &str, submit: &[&str], find: &[&str]) -> anyhow::Result<()> {
        let response = self
            .client
            .put(format!("{}/faults/{key}", self.url))
            .json(&json!({ "submit": submit, "find": find }))
            .send()
            .await?;
        ensure!(response.status().is_success(), "{response:?}");
        Ok(())
    }

    /// Takes a paid refund back.
    ///
    /// # Errors
    /// It has not paid it, or its notification was not accepted.
    pub async fn reverse(&self, key: &str) -> anyhow::Result<()> {
        let url = format!("{}/reversals/{key}", self.url);
        let response = self.client.put(url).send().await?;
        ensure!(response.status().is_success(), "{response:?}");
        Ok(())
    }

    /// It answers nothing until [`Provider::thaw`]; its connections stay open.
    ///
    /// # Errors
    /// It has ended already.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.program.freeze()
    }

    /// # Errors
    /// It has ended already.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.program.thaw()
    }

    /// # Errors
    /// It has ended already.
    pub async fn kill(self) -> anyhow::Result<()> {
        self.program.kill().await
    }
}

async fn program(ledger: &Path, flags: &[&str], system: &System) -> anyhow::Result<Program> {
    let ledger = format!("--ledger={}", ledger.display());
    let fixed = ["dev-gateway", "--listen=127.0.0.1:0", &ledger];
    let args: Vec<String> = fixed
        .iter()
        .chain(flags)
        .map(|arg| (*arg).to_owned())
        .collect();
    Program::start_with_args("returnsctl", &args, &system.env).await
}

/// The idempotency key of an attempt.
///
/// # Errors
/// There is no such return.
pub async fn key(system: &System, id: ReturnId, attempt: i32) -> anyhow::Result<String> {
    let event: uuid::Uuid =
        sqlx::query_scalar("SELECT event_id FROM return_events WHERE return_id = ? AND seq = 1")
            .bind(id)
            .fetch_one(&system.db.pool)
            .await?;
    Ok(format!("refund-{event}-{attempt}"))
}
