//! P13: no secret and no personal data in a log line, a metric or an answer to somebody else. A system whose every
//! secret is a canary is used and misused while it logs all that it can; the harness searches all that it says.

mod caught;
mod commands;
mod refunds;
mod requests;
mod stage;
mod starts;
mod tokens;

use e2e::program::Program;
use e2e::secrets::{Secrets, know};

/// A text that occurs once in the world.
fn canary(name: &str) -> String {
    format!("canary-{name}-{:032x}", rand::random::<u128>())
}

/// One that nobody may be told.
fn secret(name: &str) -> String {
    let text = canary(name);
    know(Secrets::one(name, &text));
    text
}

/// One that its owner may be told.
fn personal(name: &str) -> String {
    let text = canary(name);
    know(Secrets::personal(name, &text));
    text
}

/// Reads the operator's pages, and sees that there was something to search.
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
