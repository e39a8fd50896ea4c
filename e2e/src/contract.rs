//! Tests the api against its own document: Schemathesis reads `/openapi.json`, sends thousands of valid and invalid
//! requests, and checks every response.
//!
//! This module and `e2e/contract/hooks.py` provide the data: orders to return, a token of each role, and returns whose
//! refund failed.

mod decliner;
mod tally;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail, ensure};
use shared::domain::ids::CustomerId;
use shared::test_support::env;
use tokio::process::Command;

use self::decliner::Decliner;
pub use self::tally::Tally;
use crate::program::run as run_program;
use crate::system::System;

/// The size of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Examples per operation and phase, under a role that is allowed.
    pub examples: u32,
    /// Examples per operation and phase under each single role, which is allowed some operations only.
    pub examples_per_role: u32,
    /// The least number of cases.
    pub least_cases: u64,
    pub seed: u64,
}

/// The result of the installation.
#[derive(Debug)]
pub enum Installed {
    /// Schemathesis is in this folder.
    At(PathBuf),
    /// There is no suitable Python, for this reason.
    Not(String),
}

/// The result of a run.
#[derive(Debug)]
pub struct Findings {
    pub tally: Tally,
    /// Runs with a failed check.
    pub failed: Vec<&'static str>,
}

/// First each operation under a role that is allowed, then all operations under each role.
const RUNS: [&str; 4] = ["fitting", "customer", "admin", "auditor"];
const SIGNED_PATH: &str = "/gateway/notifications";
/// Orders of each customer in each run.
const ORDERS: i64 = 20_000;
/// Each run has a customer of its own, so that it cannot repeat an `Idempotency-Key` of another run.
const FIRST_CUSTOMER: i64 = 42;
/// The customer whose refunds are all declined.
const UNLUCKY: i64 = 13;
/// Admin and auditor: admins cannot decide about their own returns.
const STAFF: i64 = 7;
/// Exit code of `install`: there is no Python.
const NO_PYTHON: i32 = 3;
/// Exit code of Schemathesis: a check failed.
const CHECK_FAILED: i32 = 1;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contract")
}

/// The copy of the document, which a test compares with the one that the api serves, without the path that is not tested
/// here.
fn document() -> anyhow::Result<serde_json::Value> {
    let path = folder().join("../../docs/openapi.json");
    let mut document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    if let Some(paths) = document["paths"].as_object_mut() {
        paths.remove(SIGNED_PATH);
    }
    Ok(document)
}

/// Installs Schemathesis unless it is there.
///
/// # Errors
/// The script cannot be run.
pub async fn install() -> anyhow::Result<Installed> {
    let venv = PathBuf::from(env("STACK_DIR")).join("schemathesis");
    let output = Command::new(folder().join("install"))
        .arg(&venv)
        .stdout(Stdio::null())
        .output()
        .await
        .context("e2e/contract/install")?;
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(Installed::At(venv)),
        Some(NO_PYTHON) => Ok(Installed::Not(message)),
        _ => bail!("e2e/contract/install: {}: {message}", output.status),
    }
}

/// Runs the plan on a fresh system.
///
/// # Errors
/// The run failed.
pub async fn run(plan: &Plan, venv: &Path) -> anyhow::Result<Findings> {
    let system = System::create().await?;
    // Rate limits have tests of their own.
    let raised = "1000000";
    let limits = [("RATE_PER_ADDRESS", raised), ("RATE_PER_CALLER", raised)];
    let api = system.start_with("returns-api", &limits).await?;
    let _decliner = Decliner::start(&system, CustomerId(UNLUCKY));
    let mut findings = Findings {
        tally: Tally::of(&document()?)?,
        failed: Vec::new(),
    };
    for (at, role) in (0..).zip(RUNS) {
        let run = Run {
            role,
            customer: FIRST_CUSTOMER + at,
            first_order: 1 + at * 2 * ORDERS,
        };
        let tally = tempfile::NamedTempFile::new()?;
        let ended = run
            .schemathesis(plan, &system, api.api_address()?, venv, tally.path())
            .await?;
        match ended.code() {
            Some(0) => {}
            Some(CHECK_FAILED) => findings.failed.push(role),
            _ => bail!("Schemathesis ended with {ended} in run {role}"),
        }
        let rows = std::fs::read_to_string(tally.path())?;
        findings.tally.add(role, &serde_json::from_str(&rows)?)?;
    }
    ensure!(
        !api.last_lines().contains("panicked"),
        "the api panicked: {}",
        api.last_lines()
    );
    Ok(findings)
}

/// One run of Schemathesis.
struct Run {
    role: &'static str,
    customer: i64,
    first_order: i64,
}

impl Run {
    async fn schemathesis(
        &self,
        plan: &Plan,
        system: &System,
        api: SocketAddr,
        venv: &Path,
        tally: &Path,
    ) -> anyhow::Result<ExitStatus> {
        let first_unlucky_order = self.first_order + ORDERS;
        seed(system, self.customer, self.first_order, ORDERS).await?;
        seed(system, UNLUCKY, first_unlucky_order, ORDERS).await?;
        let examples = match self.role {
            "fitting" => plan.examples,
            _ => plan.examples_per_role,
        };
        let seed = plan.seed.to_string();
        let mut command = Command::new(venv.join("bin/schemathesis"));
        command
            .current_dir(folder())
            .env("PYTHONPATH", folder())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("CONTRACT_API", format!("http://{api}"))
            .env("CONTRACT_ROLE", self.role)
            .env("CONTRACT_FIRST_ORDER", self.first_order.to_string())
            .env(
                "CONTRACT_FIRST_UNLUCKY_ORDER",
                first_unlucky_order.to_string(),
            )
            .env("CONTRACT_CUSTOMER", self.customer.to_string())
            .env("CONTRACT_SEED", &seed)
            .env("CONTRACT_TALLY", tally);
        for (who, user, role) in [
            ("CUSTOMER", self.customer, "customer"),
            ("UNLUCKY", UNLUCKY, "customer"),
            ("ADMIN", STAFF, "admin"),
            ("AUDITOR", STAFF, "auditor"),
        ] {
            let token = token(system, user, role).await?;
            command.env(format!("CONTRACT_{who}_TOKEN"), token);
        }
        let ended = command
            .args(["--no-color", "--config-file", "schemathesis.toml", "run"])
            .args(["--checks", "all"])
            // It wants a signature of the body's bytes, which only its sender can make. Its tests are the api's.
            .args(["--exclude-path", SIGNED_PATH])
            .args(["--seed", &seed, "--max-examples", &examples.to_string()])
            .arg(format!("http://{api}/openapi.json"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await?;
        Ok(ended)
    }
}

async fn seed(system: &System, customer: i64, first: i64, orders: i64) -> anyhow::Result<()> {
    let [customer, first, orders] = [customer, first, orders].map(|number| number.to_string());
    let flags = [
        "--customer",
        &customer,
        "--first-id",
        &first,
        "--orders",
        &orders,
    ];
    run_program("returnsctl", &[&["seed"], &flags[..]].concat(), &system.env).await?;
    Ok(())
}

/// Files and reads a return with a client that is generated from `docs/openapi.json`.
///
/// # Errors
/// The client cannot be generated, or does not get the expected response.
pub async fn try_client(venv: &Path) -> anyhow::Result<()> {
    let system = System::create().await?;
    let api = system.start("returns-api").await?;
    seed(&system, FIRST_CUSTOMER, 1, 10).await?;
    let ended = Command::new(folder().join("generated-client"))
        .arg(venv)
        .env("CONTRACT_API", format!("http://{}", api.api_address()?))
        .env(
            "CONTRACT_CUSTOMER_TOKEN",
            token(&system, FIRST_CUSTOMER, "customer").await?,
        )
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await?;
    ensure!(ended.success(), "the generated client ended with {ended}");
    Ok(())
}

async fn token(system: &System, user: i64, role: &str) -> anyhow::Result<String> {
    let user = user.to_string();
    // The long run takes longer than the default of an hour on a slow machine.
    let mint = [
        "token", "mint", "--user", &user, "--role", role, "--ttl", "12h",
    ];
    let token = run_program("returnsctl", &mint, &system.env).await?;
    Ok(token.trim().to_owned())
}
