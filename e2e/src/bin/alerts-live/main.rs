//! Makes each trouble for real and waits for its alert. `make alerts-live` starts the servers and calls this.
#![expect(clippy::print_stdout, reason = "a person reads the output")]

mod causes;
mod quiet;
mod watched;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, value_parser};
use futures_util::future::{LocalBoxFuture, join_all};

use watched::Row;

/// Makes each trouble for real, with the real programs, MySQL, Kafka, and Prometheus with the rules of deploy/prometheus.
/// Prints how long each alert takes to fire and to end. Fails if one needs more than 90 seconds to fire, or does not end.
/// Beside that a system works without trouble, and no alert may fire there.
#[derive(Debug, Parser)]
#[command(name = "alerts-live", version)]
struct Args {
    /// Minutes for which the system without trouble is watched.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=30))]
    quiet_minutes: u32,
    /// Returns that are filed there per second.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=5))]
    per_second: u32,
    /// Only the troubles with this word in their name.
    #[arg(long, default_value = "")]
    only: String,
}

type Scenario = (
    &'static str,
    LocalBoxFuture<'static, anyhow::Result<Vec<Row>>>,
);

/// Each in a system of its own, at the same time.
fn scenarios(args: &Args) -> Vec<Scenario> {
    let quiet = quiet::nothing_fires(args.quiet_minutes, args.per_second);
    let all: [Scenario; 8] = [
        ("programs", Box::pin(causes::programs_are_killed())),
        ("kafka", Box::pin(causes::kafka_is_away())),
        ("mysql", Box::pin(causes::mysql_is_silent())),
        ("refunds", Box::pin(causes::refunds_go_wrong())),
        ("provider", Box::pin(causes::the_provider_is_away())),
        ("outbox", Box::pin(causes::the_outbox_fills())),
        ("keys", Box::pin(causes::keys_and_topics_are_wrong())),
        ("quiet", Box::pin(quiet)),
    ];
    let mut all = Vec::from(all);
    all.retain(|(name, _)| name.contains(&args.only));
    all
}

// The proxy before MySQL has threads of its own.
#[tokio::main]
async fn main() -> ExitCode {
    println!("{}", watched::HEADER);
    let scenarios = scenarios(&Args::parse());
    if scenarios.is_empty() {
        eprintln!("no trouble has this word in its name");
        return ExitCode::from(64);
    }
    let scenarios = scenarios.into_iter();
    let ends = scenarios.map(async |(name, scenario)| print(name, scenario.await));
    let in_time = join_all(ends).await;
    if in_time.contains(&false) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Prints what came of a scenario as soon as it ends; returns whether it is as promised.
fn print(name: &str, end: anyhow::Result<Vec<Row>>) -> bool {
    match end {
        Ok(rows) => {
            rows.iter().for_each(|row| println!("{row}"));
            rows.iter().all(Row::is_in_time)
        }
        Err(error) => {
            println!("{name}: {error:#}");
            false
        }
    }
}

/// Within it each alert must fire.
const PROMISE: Duration = Duration::from_secs(90);
