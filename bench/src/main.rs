//! Measures filing on this machine: real processes, real MySQL, every request another order, every answer checked.
//!
//! One run compares group commit with batches of one, so that both see the same machine. `make bench` starts the
//! servers and calls this; docs/BENCHMARKS.md holds a run and its conditions.

mod api_process;
mod load;
mod process;
mod report;
mod tokens;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use shared::test_support::TestDb;

use crate::api_process::{ApiProcess, Grouping};
use crate::load::{Load, Orders};
use crate::report::Row;

/// Filing throughput and latency, with group commit and with batches of one.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Args {
    /// Connections to measure, each in a run of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 100, 1000])]
    connections: Vec<usize>,

    /// Seconds that each run measures, after one second of warm-up.
    #[arg(long, default_value_t = 8)]
    seconds: u64,

    /// Runs of each kind, in turn, so that a slow minute of the machine meets all kinds alike; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,

    /// Writers (pool sizes) of the runs with batches of one; the best counts.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 16, 32, 64])]
    single_writers: Vec<u16>,

    /// Folder of the release binaries.
    #[arg(long, default_value = "target/release")]
    bin_dir: PathBuf,

    /// File with MySQL's process id, for its CPU and memory; without it they are left out.
    #[arg(long)]
    mysqld_pid_file: Option<PathBuf>,
}

const WARM_UP: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            report::complain(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Measures everything and prints the table; `false` when an answer was wrong or a row is missing.
async fn run(args: &Args) -> anyhow::Result<bool> {
    let mut results = Vec::new();
    let mut sound = true;
    let mut groupings = vec![Grouping::GroupCommit];
    groupings.extend(
        args.single_writers
            .iter()
            .copied()
            .map(Grouping::BatchesOfOne),
    );
    for connections in &args.connections {
        let mut rows = Vec::new();
        for _ in 0..args.rounds {
            for grouping in &groupings {
                let row = measure(args, *grouping, *connections).await?;
                report::progress(&row);
                sound &= row.sound();
                rows.push(row);
            }
        }
        results.extend(report::medians(rows));
    }
    report::table(&results);
    Ok(sound)
}

/// One api process on a fresh database under one load.
async fn measure(args: &Args, grouping: Grouping, connections: usize) -> anyhow::Result<Row> {
    let db = TestDb::create().await;
    let orders = Orders::seed(&db, connections, args.seconds + WARM_UP.as_secs()).await;
    let keys = tokens::Keys::generate()?;
    let api = ApiProcess::start(&args.bin_dir, db.url(), keys.public_key_file(), grouping)
        .await
        .context("returns-api did not start: `make bench` builds it")?;
    let load = Load::connect(api.address(), &keys, orders).await?;
    let mysqld = match &args.mysqld_pid_file {
        Some(file) => Some(std::fs::read_to_string(file)?.trim().parse()?),
        None => None,
    };
    let pids = process::Pids {
        api: api.pid(),
        mysqld,
    };
    let measured = load
        .run(WARM_UP, Duration::from_secs(args.seconds), &pids)
        .await?;
    let resident_kib = process::resident_kib(api.pid())?;
    let mysqld_resident_kib = mysqld.map(process::resident_kib).transpose()?;
    let stored: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM returns")
        .fetch_one(&db.pool)
        .await?;
    api.stop().await?;
    Ok(Row {
        grouping,
        connections,
        measured,
        stored,
        resident_kib,
        mysqld_resident_kib,
    })
}
