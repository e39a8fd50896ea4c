//! P13: no secret and no personal data in a log line, a metric or a response to anyone else. Every secret of these systems is
//! a canary, the programs log as much as they can, and the harness searches all their output.

mod caught;
mod commands;
mod fixture;
mod refunds;
mod requests;
mod starts;
mod tokens;

use e2e::program::Program;
use e2e::secrets::{Secrets, register};

/// A unique text.
fn canary(name: &str) -> String {
    format!("canary-{name}-{:032x}", rand::random::<u128>())
}

/// A canary that no output may contain.
fn secret(name: &str) -> String {
    let text = canary(name);
    register(Secrets::one(name, &text));
    text
}

/// A canary that only its owner may read.
fn personal(name: &str) -> String {
    let text = canary(name);
    register(Secrets::personal(name, &text));
    text
}

/// Reads the operator's pages, and checks that there was enough to search.
async fn pages_hold_none(programs: &[&Program]) -> anyhow::Result<()> {
    const LINES: usize = 50;
    for program in programs {
        let metrics = program.ops_page("/metrics").await?;
        anyhow::ensure!(metrics.contains("_total"), "no metrics: {metrics}");
        program.ops_page("/readyz?verbose").await?;
        program.ops_page("/livez").await?;
        program.ops_page("/elsewhere").await?;
        let lines = program.lines_written();
        anyhow::ensure!(lines > LINES, "only {lines}: {}", program.last_lines());
    }
    Ok(())
}
