//! Tests the api against its own document. `make test-contract` starts the servers and calls this.
#![expect(clippy::print_stdout, reason = "a person reads the output")]

use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use e2e::contract::{self, Installed, Plan};

/// Sends what `/openapi.json` allows and what it forbids, and checks every response.
#[derive(Debug, Parser)]
#[command(name = "contract", version)]
struct Args {
    /// About 3,000 cases in half a minute. Without Python the test is skipped and prints the reason.
    #[arg(long)]
    short: bool,
    /// The seed of a run that is to be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// Files and reads a return with a generated client instead.
    #[arg(long, conflicts_with_all = ["short", "seed"])]
    client: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match test(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("contract: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The short form is part of `make test`: it sends the same requests each time, so that it fails because of a change, not by
/// chance. The long form uses a random seed.
fn usual_seed(short: bool) -> u64 {
    if short {
        1
    } else {
        rand::random_range(0..1 << 32)
    }
}

async fn test(args: &Args) -> anyhow::Result<()> {
    let venv = match contract::install().await? {
        Installed::At(venv) => venv,
        Installed::Not(why) if args.short => {
            println!("contract test: SKIPPED: {why}");
            return Ok(());
        }
        Installed::Not(why) => anyhow::bail!("{why}"),
    };
    if args.client {
        return contract::try_client(&venv).await;
    }
    let (examples, examples_per_role, least_cases) = if args.short {
        (8, 2, 0)
    } else {
        (1_200, 220, 20_000)
    };
    let plan = Plan {
        examples,
        examples_per_role,
        least_cases,
        seed: args.seed.unwrap_or_else(|| usual_seed(args.short)),
    };
    println!("contract: --seed {}", plan.seed);
    let findings = contract::run(&plan, &venv).await?;
    println!("\n{}", findings.tally);
    ensure!(
        findings.failed.is_empty(),
        "checks failed in the runs {:?}; their reports are above",
        findings.failed
    );
    let refused = findings.tally.mostly_refused();
    ensure!(
        refused.is_empty(),
        "less than 20 % of the valid requests succeeded: {refused:?}"
    );
    let cases = findings.tally.cases();
    ensure!(
        cases >= plan.least_cases,
        "{cases} cases are less than {}",
        plan.least_cases
    );
    Ok(())
}
