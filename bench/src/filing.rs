//! Filing: each request is for another order, and every response is checked.
//!
//! One run compares group commit with batches of one, so that both run on the same machine at the same time.

pub(crate) mod load;
mod report;

use std::time::Duration;

use e2e::program::Program;
use shared::test_support::TestDb;

use self::load::{Load, Orders};
use self::report::Row;
use crate::api;
use crate::process::{self, Servers};
use crate::tokens::Keys;

#[derive(Debug, clap::Args)]
pub(crate) struct FilingArgs {
    /// Connections to measure, each in a run of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 100, 1000])]
    connections: Vec<usize>,

    /// Seconds that each run measures, after one second of warm-up.
    #[arg(long, default_value_t = 8)]
    seconds: u64,

    /// Runs of each kind, in turn, so that a slow minute of the machine affects all kinds alike; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,

    /// Writers (pool sizes) of the runs with batches of one; the best counts.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 16, 32, 64])]
    single_writers: Vec<u16>,
}

/// How filings are put into transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grouping {
    /// The default settings.
    GroupCommit,
    /// One transaction per request, with this many in flight.
    BatchesOfOne(u16),
}

pub(crate) const WARM_UP: Duration = Duration::from_secs(1);
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Measures everything and prints the table; `false` if a response was wrong or a row is missing.
pub(crate) async fn run(args: &FilingArgs, servers: &Servers) -> anyhow::Result<bool> {
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
                let row = measure(args, servers, *grouping, *connections).await?;
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
async fn measure(
    args: &FilingArgs,
    servers: &Servers,
    grouping: Grouping,
    connections: usize,
) -> anyhow::Result<Row> {
    let db = TestDb::create().await;
    let orders = Orders::seed(&db, connections, args.seconds + WARM_UP.as_secs()).await;
    let keys = Keys::generate()?;
    let api = start_api(&db, &keys, grouping).await?;
    let load = Load::connect(api.api_address()?, &keys, orders).await?;
    let mysqld = servers.mysqld()?;
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
    api.stop(STOP_DEADLINE).await?;
    db.delete().await;
    Ok(Row {
        grouping,
        connections,
        measured,
        stored,
        resident_kib,
        mysqld_resident_kib,
    })
}

async fn start_api(db: &TestDb, keys: &Keys, grouping: Grouping) -> anyhow::Result<Program> {
    match grouping {
        Grouping::GroupCommit => api::start(db, keys, &[]).await,
        Grouping::BatchesOfOne(writers) => {
            let more = [
                ("FILING_BATCH_MAX", "1".to_owned()),
                ("FILING_WRITERS", writers.to_string()),
                ("DATABASE_MAX_CONNECTIONS", (writers + 8).to_string()),
            ];
            api::start(db, keys, &more).await
        }
    }
}
