//! Deleted rows stay in the table, marked, until InnoDB purges them, and it keeps rows that an open transaction may still
//! read. This measures reads, look-ups of predecessors and the latency of new events beside a backlog of such rows.

use std::time::Duration;

use sqlx::{Connection, Executor, MySqlConnection, MySqlPool};

use super::RelayArgs;
use super::drain;
use super::latency::{self, Load};
use super::stage::{Relays, Stage};
use crate::process::Servers;
use crate::report;

/// Events per second beside the deleted rows.
const RATE: u32 = 100;
/// For Kafka's JVM, see `latency`; it is warm in later runs.
const FIRST_WARM_UP: Duration = Duration::from_secs(30);
const WARM_UP: Duration = Duration::from_secs(5);
const DRAIN_DEADLINE: Duration = Duration::from_secs(600);

pub(super) async fn run(args: &RelayArgs, servers: &Servers) -> anyhow::Result<bool> {
    let stage = Stage::set().await?;
    let returns = latency::file_returns(&stage).await?;
    let relays = stage.relays(1).await?;
    let mut load = Load {
        returns: &returns,
        rate: RATE,
        per_transaction: 1,
        warm_up: FIRST_WARM_UP,
        measure: Duration::from_secs(args.seconds),
    };
    let before = measure(&stage, &relays, servers, &load).await?;
    load.warm_up = WARM_UP;

    let mut snapshot = MySqlConnection::connect_with(&stage.options()).await?;
    snapshot
        .execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        .await?;
    let rows = drain::fill(&stage, args.rows, 16).await?;
    stage.all_published(DRAIN_DEADLINE).await?;
    let beside = measure(&stage, &relays, servers, &load).await?;
    // A new relay knows no return, so it must look up the predecessor of the next event of each.
    relays.stop().await?;
    let relays = stage.relays(1).await?;
    let started = measure(&stage, &relays, servers, &load).await?;

    snapshot.execute("ROLLBACK").await?;
    stage.purged().await?;
    let after = measure(&stage, &relays, servers, &load).await?;
    relays.stop().await?;
    report::table(
        &format!("Reading beside {rows} deleted rows, {RATE} events/s"),
        "| | reads/s | ms of a read: average | longest | look-ups/s | ms of a look-up: average | longest | p50 ms | p99 ms \
         | cores: relay / mysqld / Kafka |",
        &[
            format!("| before | {before} |"),
            format!("| deleted, an older snapshot open | {beside} |"),
            format!("| the same, the relay newly started | {started} |"),
            format!("| snapshot closed, purged | {after} |"),
        ],
    );
    Ok(true)
}

/// The cells of a line: the server's statistics of the relay's reads and look-ups of predecessors during a load, and the
/// latencies of the load.
async fn measure(
    stage: &Stage,
    relays: &Relays,
    servers: &Servers,
    load: &Load<'_>,
) -> anyhow::Result<String> {
    let pool = &stage.system.db.pool;
    pool.execute("TRUNCATE TABLE performance_schema.prepared_statements_instances")
        .await?;
    let run = load.run(stage, relays, servers).await?;
    let seconds = (load.warm_up + load.measure).as_secs_f64();
    let cells = format!(
        "{} | {} | {:.1} | {:.1} | {}",
        executions(pool, "read_pending", seconds).await?,
        executions(pool, "read_predecessors", seconds).await?,
        run.millis(0.5),
        run.millis(0.99),
        run.cores.per(1.0)
    );
    report::progress(&format!("snapshot: {cells}"));
    Ok(cells)
}

/// The cells of a statement: executions per second, and average and longest execution in milliseconds.
async fn executions(pool: &MySqlPool, name: &str, seconds: f64) -> anyhow::Result<String> {
    // Picoseconds.
    let sql = "SELECT CAST(COALESCE(SUM(count_execute), 0) AS DOUBLE), \
               CAST(COALESCE(SUM(sum_timer_execute) / SUM(count_execute), 0) / 1e9 AS DOUBLE), \
               CAST(COALESCE(MAX(max_timer_execute), 0) / 1e9 AS DOUBLE) \
               FROM performance_schema.prepared_statements_instances \
               WHERE sql_text LIKE ? AND count_execute > 0";
    let (count, average_ms, longest_ms): (f64, f64, f64) = sqlx::query_as(sql)
        .bind(format!("/* {name} */%"))
        .fetch_one(pool)
        .await?;
    Ok(format!(
        "{:.0} | {average_ms:.2} | {longest_ms:.1}",
        count / seconds
    ))
}
